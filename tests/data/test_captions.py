"""What becomes of captions: which tags, in which order, how often, and always the same."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from surefoot.config.captions import CaptionsConfig
from surefoot.data.captions import drawn_caption, has_trigger, plain_caption

tags = st.lists(
    st.text(st.characters(categories=["Ll", "Lo", "Nd"]), min_size=1, max_size=5), max_size=8
)
seeds, steps, positions = st.integers(0, 2**63 - 1), st.integers(0, 10**6), st.integers(0, 9999)


def config(**values: Any) -> CaptionsConfig:
    return CaptionsConfig.model_validate({"dropout": 0.0, **values})


def drawn(captions: str | list[str], settings: CaptionsConfig, count: int = 2000) -> list[str]:
    given_captions = [captions] if isinstance(captions, str) else captions
    return [
        drawn_caption(given_captions, settings, seed=5, step=step, position=0)
        for step in range(count)
    ]


def test_captions_are_dropped_as_often_as_asked() -> None:
    found = drawn("a cat", config(dropout=0.1, trigger="mycat", prefix="a photo of "), 10_000)
    assert set(found) == {"", "a photo of mycat, a cat"}
    assert abs(found.count("") - 1000) < 150  # five standard deviations of 30


def test_zero_keeps_and_one_drops_every_caption() -> None:
    assert set(drawn("a", config())) == {"a"}
    assert set(drawn("a", config(dropout=1.0))) == {""}


def test_no_other_setting_changes_which_captions_are_dropped() -> None:
    plain = drawn("a, {b|c}, d", config(dropout=0.3))
    full = config(dropout=0.3, shuffle=True, tag_dropout=0.5, wildcards=True, suffix="!")
    changed = drawn(["a, {b|c}, d", "x"], full)
    assert [text == "" for text in plain] == [text == "" for text in changed]


@given(tags, st.integers(0, 10), seeds, steps, positions)
def test_shuffle_keeps_every_tag_and_the_first_ones_in_their_places(
    words: list[str], keep: int, seed: int, step: int, position: int
) -> None:
    settings = config(shuffle=True, keep_tags=keep)
    text = drawn_caption([", ".join(words)], settings, seed=seed, step=step, position=position)
    found = text.split(", ") if text else []
    assert Counter(found) == Counter(words)
    assert found[:keep] == words[:keep]


@given(tags, st.integers(0, 10), seeds, steps, positions)
def test_tag_dropout_leaves_the_rest_in_its_order_and_keeps_the_first(
    words: list[str], keep: int, seed: int, step: int, position: int
) -> None:
    assume(len(set(words)) == len(words))
    settings = config(tag_dropout=0.5, keep_tags=keep)
    text = drawn_caption([", ".join(words)], settings, seed=seed, step=step, position=position)
    found = text.split(", ") if text else []
    assert found == [word for word in words if word in found]
    assert found[:keep] == words[:keep]


@given(st.lists(st.text(max_size=20), min_size=1, max_size=3), seeds, steps, positions)
def test_same_seed_step_and_position_give_the_same_caption(
    captions: list[str], seed: int, step: int, position: int
) -> None:
    settings = config(dropout=0.2, shuffle=True, tag_dropout=0.3, wildcards=True)
    one, two = (
        drawn_caption(captions, settings, seed=seed, step=step, position=position) for _ in range(2)
    )
    assert one == two


@given(st.text(max_size=30), seeds, steps)
def test_caption_that_is_to_stay_as_it_is_stays_so(text: str, seed: int, step: int) -> None:
    assert drawn_caption([text], config(), seed=seed, step=step, position=0) == text
    assert plain_caption([text], config()) == text


def test_every_order_of_three_tags_comes_as_often() -> None:
    counts = Counter(drawn("a, b, c", config(shuffle=True), 6000))
    assert len(counts) == 6
    assert max(abs(count - 1000) for count in counts.values()) < 150  # five deviations of 29


def test_a_tenth_of_the_tags_is_left_out() -> None:
    found = drawn("a, b, c, d", config(tag_dropout=0.1), 5000)
    missing = sum(4 - len(text.split(", ")) for text in found)
    assert abs(missing - 2000) < 215  # five deviations of 42


def test_each_of_several_captions_and_wildcards_comes_as_often() -> None:
    counts = Counter(drawn(["a", "b {x|y}"], config(wildcards=True), 4000))
    assert counts.keys() == {"a", "b x", "b y"}
    assert abs(counts["a"] - 2000) < 160
    assert abs(counts["b x"] - 1000) < 140


def test_wildcards_nest_and_unpaired_braces_stay() -> None:
    assert set(drawn("a {b|{c|d} e}", config(wildcards=True))) == {"a b", "a c e", "a d e"}
    assert set(drawn("a {b|c", config(wildcards=True))) == {"a {b|c"}
    assert set(drawn("a {b|c}", config())) == {"a {b|c}"}


def test_positions_of_a_step_draw_apart() -> None:
    settings = config(shuffle=True)
    found = {
        drawn_caption(["a,b,c,d,e,f"], settings, seed=1, step=4, position=position)
        for position in range(20)
    }
    assert len(found) > 15


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat", "mycat, a cat"),
        ("a MyCat on a roof", "a MyCat on a roof"),
        ("mycats", "mycat, mycats"),
        ("一只mycat在屋顶", "一只mycat在屋顶"),
        ("", "mycat"),
    ],
)
def test_trigger_is_put_in_front_of_what_lacks_it(text: str, expected: str) -> None:
    assert plain_caption([text], config(trigger="mycat")) == expected


def test_trigger_may_be_several_words_with_signs() -> None:
    assert has_trigger("a photo of Sks (dog) here", "sks (dog)")
    assert not has_trigger("a photo of a dog", "sks (dog)")


def test_mark_says_which_tags_are_kept_and_is_taken_out() -> None:
    settings = config(shuffle=True, keep_mark="|||", keep_tags=1)
    found = set(drawn("a, b ||| c, d", settings, 200)) | set(drawn("a, b, c", settings, 200))
    assert found == {"a, b, c, d", "a, b, d, c", "a, b, c", "a, c, b"}
    assert plain_caption(["a, b ||| c, d"], config(keep_mark="|||")) == "a, b, c, d"


def test_other_separators_are_kept_between_the_tags() -> None:
    assert set(drawn("a; b", config(shuffle=True, separator=";"), 99)) == {"a; b", "b; a"}
    assert set(drawn("a b", config(shuffle=True, separator=" "), 99)) == {"a b", "b a"}


def test_prefix_and_suffix_stand_around_everything_but_a_dropped_caption() -> None:
    settings = config(dropout=0.5, prefix="art by ", suffix=".", trigger="x")
    assert set(drawn("a", settings)) == {"", "art by x, a."}


def test_plain_caption_takes_the_first_of_all_choices() -> None:
    settings = config(wildcards=True, shuffle=True, tag_dropout=0.9, trigger="t")
    assert plain_caption(["{a|b}, c", "d"], settings) == "t, a, c"
