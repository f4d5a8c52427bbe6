"""Selection of the layers that get an adapter."""

from __future__ import annotations

import subprocess
import sys

from surefoot.tuning.targets import select_targets, unmatched_patterns

SHAPES: dict[str, tuple[int, ...]] = {
    "conv_in": (8, 4, 3, 3),
    "time_embedding.linear_1": (32, 8),
    "down.0.attn1.to_q": (8, 8),
    "down.0.attn1.to_k": (8, 8),
    "down.0.attn1.to_out.0": (8, 8),
    "down.0.attn2.to_q": (8, 8),
    "down.0.norm1": (8,),
    "down.0.ff.net.0.proj": (64, 8),
    "down.10.attn1.to_q": (8, 8),
    "video.conv": (8, 8, 3, 3, 3),
    "audio.conv": (8, 8, 3),
    "grouped.conv": (8, 1, 3, 3),
    "text_model.embeddings.token_embedding": (512, 8),
    "text_model.embeddings.projection": (8, 8),
    "patch_embedding": (8, 3, 4, 4),
    "my_attn1.to_q": (8, 8),
}


def test_a_pattern_matches_the_whole_path_and_every_dotted_suffix() -> None:
    assert select_targets(SHAPES, ["attn1.to_q"]) == ("down.0.attn1.to_q", "down.10.attn1.to_q")
    assert select_targets(SHAPES, ["conv_in"]) == ("conv_in",)
    assert select_targets(SHAPES, ["ff.net.0.proj"]) == ("down.0.ff.net.0.proj",)
    assert select_targets(SHAPES, ["down.0.attn1.to_out.0"]) == ("down.0.attn1.to_out.0",)
    assert select_targets(SHAPES, ["attn1"]) == ()


def test_wildcards_cross_dots_and_are_anchored_at_both_ends() -> None:
    assert select_targets(SHAPES, ["down.0.*.to_q"]) == ("down.0.attn1.to_q", "down.0.attn2.to_q")
    assert select_targets(SHAPES, ["down.?.*.to_[qk]"]) == (
        "down.0.attn1.to_q",
        "down.0.attn1.to_k",
        "down.0.attn2.to_q",
    )
    assert select_targets(SHAPES, ["*.to_k"]) == ("down.0.attn1.to_k",)


def test_norms_and_embeddings_are_no_targets() -> None:
    chosen = select_targets(SHAPES, ["*"])
    assert set(SHAPES) - set(chosen) == {
        "down.0.norm1",
        "text_model.embeddings.token_embedding",
        "text_model.embeddings.projection",
        "patch_embedding",
    }
    assert "time_embedding.linear_1" in chosen


def test_the_order_is_that_of_the_model_and_each_path_comes_once() -> None:
    patterns = ["my_attn1.to_q", "to_q", "down.*", "conv_in"]
    chosen = select_targets(SHAPES, patterns)
    assert list(chosen) == [path for path in SHAPES if path in set(chosen)]
    assert chosen == select_targets(SHAPES, patterns[::-1])


def test_patterns_that_select_nothing_are_named_in_order() -> None:
    patterns = ["to_v", "to_q", "norm1", "TO_Q", "token_embedding"]
    assert unmatched_patterns(SHAPES, patterns) == ("to_v", "norm1", "TO_Q", "token_embedding")


def test_selecting_targets_needs_no_torch() -> None:
    code = "import sys, surefoot.tuning.targets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
