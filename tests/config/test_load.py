"""run.toml to a config: every problem named at once, and nothing taken for what it is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot.config.load import load, load_rest
from surefoot.config.optimizer import AdafactorConfig, AdamWConfig
from surefoot.config.run import RunConfig
from surefoot.config.tuning import DoraConfig, FullConfig, LoraConfig
from surefoot.finding import Finding, Refused

SMALLEST = """\
name = "cat"
[model]
path = "builtin"
[[data.folders]]
path = "builtin"
[train]
steps = 10
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(path: Path, *overrides: str) -> dict[str, Finding]:
    """The findings by their path; every one is an error and has a path of its own."""
    with pytest.raises(Refused) as caught:
        load(path, overrides)
    findings = {finding.path: finding for finding in caught.value.findings}
    assert len(findings) == len(caught.value.findings)
    assert all(finding.level == "error" and finding.unusable for finding in findings.values())
    return findings


def value_of(config: RunConfig, path: str) -> object:
    value: object = config
    for part in path.split("."):
        value = value[int(part)] if isinstance(value, tuple) else getattr(value, part)
    return value


def test_smallest_file_gets_the_defaults(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, SMALLEST))
    assert loaded.config.optimizer == AdafactorConfig()
    assert loaded.config.tuning == DoraConfig()
    assert loaded.folder == tmp_path
    assert loaded.text == SMALLEST


def test_section_without_kind_is_of_the_default_kind(tmp_path: Path) -> None:
    text = SMALLEST + "[optimizer]\nlr = 1e-3\n[tuning]\nrank = 4\n"
    config = load(write(tmp_path, text)).config
    assert config.optimizer == AdafactorConfig(lr=1e-3)
    assert config.tuning == DoraConfig(rank=4)


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("train.steps=20", "train.steps", 20),
        ("seed = 7", "seed", 7),
        ("optimizer.lr=3e-5", "optimizer.lr", 3e-5),
        ("optimizer.lr=auto", "optimizer.lr", "auto"),
        ("optimizer.kind=adamw", "optimizer", AdamWConfig()),
        ('optimizer.kind="adamw"', "optimizer", AdamWConfig()),
        ("optimizer.relative_step=true", "optimizer.relative_step", True),
        ("tuning.kind=full", "tuning", FullConfig()),
        ('tuning.targets=["to_k", "to_v"]', "tuning.targets", ("to_k", "to_v")),
        ("preview.prompts=['a cat']", "preview.prompts", ("a cat",)),
        ("validation.folder=some where", "validation.folder", "some where"),
        ("data.folders.0.repeats=3", "data.folders.0.repeats", 3),
        ("model={path='other'}", "model.path", "other"),
        ("folder=a=b", "folder", "a=b"),
        ("name=2024-run", "name", "2024-run"),
    ],
)
def test_override_takes_a_toml_value_or_a_bare_word(
    override: str, path: str, value: object, tmp_path: Path
) -> None:
    assert value_of(load(write(tmp_path, SMALLEST), (override,)).config, path) == value


def test_later_override_wins_and_the_text_stays(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, SMALLEST), ("train.steps=2", "train.steps=3"))
    assert loaded.config.train.steps == 3
    assert loaded.text == SMALLEST


@pytest.mark.parametrize(
    "override",
    [
        "train.steps",
        "=3",
        ".steps=3",
        "train..steps=3",
        "train.=3",
        "train.steps.more=3",
        "data.folders.1.path=x",
        "data.folders.-1.path=x",
        "data.folders.first.path=x",
        "data.folders.1={path='x'}",
        "",
        "name=\udcff",
    ],
)
def test_override_that_leads_nowhere_is_named(override: str, tmp_path: Path) -> None:
    findings = refused(write(tmp_path, SMALLEST), override)
    assert findings[""].code == "SF005"
    assert findings[""].values == {"override": override}


def test_bad_override_is_said_together_with_what_is_wrong_in_the_file(tmp_path: Path) -> None:
    findings = refused(write(tmp_path, SMALLEST + "flip = 1\n"), "seed", "train.ema=2")
    assert {path: finding.code for path, finding in findings.items()} == {
        "": "SF005",
        "train.flip": "SF003",
        "train.ema": "SF004",
    }


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("data.flip", '"true"', "true or false"),
        ("data.flip", "1", "true or false"),
        ("train.steps", "10.0", "a whole number"),
        ("train.steps", '"10"', "a whole number"),
        ("train.steps", "true", "a whole number"),
        ("train.steps", "0", ">= 1"),
        ("train.steps", "nan", "a whole number"),
        ("data.caption_dropout", "nan", "a finite number"),
        ("data.caption_dropout", "inf", "a finite number"),
        ("objective.noise_offset", "-inf", "a finite number"),
        ("preview.guidance", "1e999", "a finite number"),
        ("train.ema", "nan", 'a finite number / "off"'),
        ("optimizer.lr", '"atuo"', 'a number / "auto"'),
        ("optimizer.lr", "11.0", '<= 10.0 / "auto"'),
        ("optimizer.scale_parameter", '"wieght"', 'true or false / "weight"'),
        ("optimizer.eps2", "true", "a number"),
        ("seed", "-1", ">= 0"),
        ("seed", "9223372036854775808", "< 9223372036854775808"),
        ("name", '"a b"', "letters, digits, dots, - and _, beginning with a letter or digit"),
        ("name", "3", "text in quotes"),
        ("name", "2020-01-01", "text in quotes"),
        ("model.path", '""', "text that is not empty"),
        ("model.path", '"a\\u0000b"', "a path, on one line"),
        ("model.family", '"sd16"', '"sd15"'),
        ("train.device", '"gpu"', "auto, cpu, cuda, cuda:1 or mps, in quotes"),
        ("train.precision", '"fp16"', '"fp32" / "bf16"'),
        ("schedule.kind", '"cosin"', '"constant" / "linear" / "cosine"'),
        ("optimizer.kind", '"adafactr"', '"adafactor" / "adamw"'),
        ("tuning.kind", "3", '"full" / "lora" / "dora"'),
        ("tuning.parts.0", '"vae"', '"unet" / "text_encoder"'),
        ("tuning.targets.1", "3", "text in quotes"),
        ("tuning.parts", "[]", "a list with something in it"),
        ("data.folders", "[]", "a list with something in it"),
        ("data.folders", '"pictures"', "a list in brackets"),
        ("data.folders.0.repeats", "0", ">= 1"),
        ("preview.prompts", '"a cat"', "a list in brackets"),
        ("model", "3", "a section with keys"),
        ("optimizer", '"adamw"', "a section with keys"),
        ("format", "2", "1"),
    ],
)
def test_value_that_does_not_fit_is_named_with_what_would(
    path: str, value: str, expected: str, tmp_path: Path
) -> None:
    overrides = ("tuning.parts=['unet']", "tuning.targets=['a', 'b']", f"{path}={value}")
    findings = refused(write(tmp_path, SMALLEST), *overrides)
    assert {finding.code for finding in findings.values()} == {"SF004"}
    assert list(findings) == [path]
    assert findings[path].values["key"] == path
    assert findings[path].values["expected"] == expected


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("nmae", "name"),
        ("optimizer.clip_treshold", "clip_threshold"),
        ("optimizer.scale_paramter", "scale_parameter"),
        ("tuning.rnk", "rank"),
        ("data.folders.0.repeat", "repeats"),
        ("train.batchsize", "batch_size"),
        ("preview.xyzzy", ""),
    ],
)
def test_unknown_key_is_named_with_the_one_that_was_meant(
    path: str, near: str, tmp_path: Path
) -> None:
    findings = refused(write(tmp_path, SMALLEST), f"{path}=1")
    assert list(findings) == [path]
    assert findings[path].code == "SF003"
    assert findings[path].values["key"] == path.rpartition(".")[2]
    assert findings[path].values["near"] == near
    if near:
        assert near in str(findings[path].values["known"]).split(", ")


def test_key_of_another_optimizer_is_unknown_here(tmp_path: Path) -> None:
    findings = refused(write(tmp_path, SMALLEST), "optimizer.kind=adamw", "optimizer.eps2=1")
    known = str(findings["optimizer.eps2"].values["known"]).split(", ")
    assert known == ["kind", "lr", "beta1", "beta2", "eps", "weight_decay"]


def test_missing_keys_are_all_named(tmp_path: Path) -> None:
    findings = refused(write(tmp_path, "seed = 1\n[model]\n[train]\n[[data.folders]]\n"))
    assert {finding.code for finding in findings.values()} == {"SF006"}
    assert set(findings) == {"name", "model.path", "train.steps", "data.folders.0.path"}


def test_every_problem_of_a_file_is_named_at_once(tmp_path: Path) -> None:
    text = """
        nmae = "cat"
        name = "a b"
        [model]
        path = 3
        [tuning]
        kind = "lora"
        rank = 1.0
        [optimizer]
        kind = "adamw"
        lr = "fast"
        [[data.folders]]
        path = "x"
        repeats = 0
        [train]
        ema = 1.5
    """
    assert {path: finding.code for path, finding in refused(write(tmp_path, text)).items()} == {
        "nmae": "SF003",
        "name": "SF004",
        "model.path": "SF004",
        "tuning.rank": "SF004",
        "optimizer.lr": "SF004",
        "data.folders.0.repeats": "SF004",
        "train.ema": "SF004",
        "train.steps": "SF006",
    }


def test_long_values_are_shown_cut(tmp_path: Path) -> None:
    findings = refused(write(tmp_path, SMALLEST), f"name={'x' * 500}")
    assert findings["name"].values["given"] == '"' + "x" * 56 + "..."


def test_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(SMALLEST, encoding="utf-8-sig")
    assert load(path).config.name == "cat"


def _nothing(_path: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_nothing, "file not found"),
        (Path.mkdir, "Is a directory"),
        (lambda path: path.write_bytes(b'name = "caf\xe9"'), "not UTF-8 text"),
        (lambda path: path.write_text(SMALLEST, encoding="utf-16"), "not UTF-8 text"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    ],
    ids=["missing", "folder", "latin-1", "utf-16", "link to itself"],
)
def test_file_that_cannot_be_read_is_named_with_the_reason(
    make: Callable[[Path], object], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.toml"
    make(path)
    findings = refused(path)
    assert findings[""].code == "SF001"
    assert findings[""].values == {"file": str(path), "reason": reason}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name = cat\n", "line 1"),
        ("a = 1\nb = 2\nc = [1\n", "end of document"),
        ("[model]\n[model]\n", "line 2"),
        ("a = 1\na = 2\n", "line 2"),
        ("seed = 01\n", "line 1"),
        ("seed = " + "9" * 5000, "4300"),
        ("seed = " + "[" * 100_000, ""),
    ],
    ids=["bare word", "unclosed", "table twice", "key twice", "zero", "digits", "brackets"],
)
def test_broken_toml_is_named_with_its_line(text: str, reason: str, tmp_path: Path) -> None:
    findings = refused(write(tmp_path, text))
    assert findings[""].code == "SF002"
    assert reason in str(findings[""].values["reason"])


def test_rest_of_a_refused_file_keeps_the_sections_that_are_right(tmp_path: Path) -> None:
    text = SMALLEST + "[optimizer]\nlr = -1\n[validation]\nfolder = 'held out'\n"
    path = write(tmp_path, text)
    overrides = ("train.steps=x", "model.path=mine")
    problems = list(refused(path, *overrides).values())
    rest = load_rest(path, overrides, problems).config
    assert rest.model.path == "mine"
    assert rest.validation.folder == "held out"
    assert rest.data.folders[0].path == "builtin"
    assert rest.train.steps == 1
    assert rest.optimizer == AdafactorConfig()


def test_no_rest_is_left_of_what_is_no_toml(tmp_path: Path) -> None:
    path = write(tmp_path, "name = ")
    with pytest.raises(Refused):
        load_rest(path, (), list(refused(path).values()))


def positive(highest: float) -> st.SearchStrategy[float]:
    return st.floats(1e-12, highest, allow_subnormal=False)


# Text that a TOML string can hold; a path has no control characters.
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
paths = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
counts = st.integers(1, 10**6)
parts = st.lists(st.sampled_from(["unet", "text_encoder"]), min_size=1, max_size=2)
targets = st.sampled_from(["attention", "attention+feed_forward", "linear", "all"]) | st.lists(
    text, min_size=1, max_size=3
)


def section(
    required: dict[str, st.SearchStrategy[Any]] | None = None,
    **optional: st.SearchStrategy[Any],
) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required or {}, optional=optional)


def adapter(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    return section(
        {"kind": st.just(kind)},
        parts=parts,
        rank=st.integers(1, 4096),
        alpha=positive(1e6) | st.just("auto"),
        targets=targets,
    )


adafactor = section(
    kind=st.just("adafactor"),
    lr=positive(10) | st.just("auto"),
    scale_parameter=st.booleans() | st.just("weight"),
    relative_step=st.booleans(),
    warmup_init=st.booleans(),
    clip_threshold=positive(1e3),
    decay_rate=st.floats(-2, -0.01),
    beta1=st.floats(0, 0.99),
    eps1=st.floats(0, 1),
    eps2=st.floats(0, 1),
    weight_decay=st.floats(0, 1),
)
adamw = section(
    {"kind": st.just("adamw")},
    lr=positive(10) | st.just("auto"),
    beta1=st.floats(0, 0.99),
    beta2=st.floats(0, 0.9999),
    eps=positive(1),
    weight_decay=st.floats(0, 1),
)
folders = st.lists(section({"path": paths}, repeats=counts), min_size=1, max_size=3)
documents = section(
    {
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True),
        "model": section(
            {"path": paths},
            config=paths,
            prediction=st.sampled_from(["auto", "epsilon", "v_prediction"]),
        ),
        "data": section(
            {"folders": folders},
            resolution=st.integers(8, 8192) | st.just("auto"),
            captions=st.sampled_from(["required", "optional"]),
            caption_dropout=st.floats(0, 1),
            flip=st.booleans(),
            cache=st.sampled_from(["disk", "off"]),
        ),
        "train": section(
            {"steps": counts},
            batch_size=counts,
            clip_grad_norm=positive(1e3) | st.just("off"),
            precision=st.sampled_from(["fp32", "bf16"]),
            ema=st.floats(0.001, 0.999) | st.just("off"),
            device=st.sampled_from(["auto", "cpu", "cuda", "cuda:1", "mps"]),
        ),
    },
    format=st.just(1),
    folder=paths,
    seed=st.integers(0, 2**63 - 1),
    tuning=adapter("dora") | adapter("lora") | section({"kind": st.just("full")}, parts=parts),
    optimizer=adafactor | adamw,
    schedule=section(
        kind=st.sampled_from(["constant", "linear", "cosine"]), warmup_steps=st.integers(0, 99)
    ),
    objective=section(snr_gamma=positive(20) | st.just("off"), noise_offset=st.floats(0, 1)),
    validation=section(folder=paths, every=counts | st.just("auto"), draws=counts),
    preview=section(prompts=st.lists(text, max_size=3), guidance=st.floats(1, 30), steps=counts),
    save=section(every=counts | st.just("auto"), keep=counts),
)


@settings(max_examples=60, deadline=None)
@given(document=documents)
def test_config_written_as_toml_is_read_back_as_it_was(
    document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("run") / "run.toml"
    path.write_text(tomlkit.dumps(document), encoding="utf-8", newline="")
    config = load(path).config
    dumped = json.loads(config.model_dump_json())
    path.write_text(tomlkit.dumps(dumped), encoding="utf-8", newline="")
    assert load(path).config == config
    assert_kept(document, dumped)


def assert_kept(asked: object, found: object) -> None:
    """What was asked is in what was found, which has the defaults too."""
    if isinstance(asked, dict):
        assert isinstance(found, dict)
        for key, value in asked.items():
            assert_kept(value, found[key])
    elif isinstance(asked, list):
        assert isinstance(found, list)
        assert len(asked) == len(found)
        for left, right in zip(asked, found, strict=True):
            assert_kept(left, right)
    else:
        assert found == asked
        assert isinstance(found, bool) == isinstance(asked, bool)


@pytest.mark.parametrize("kind", [LoraConfig, DoraConfig, FullConfig])
def test_kind_chooses_the_section(
    kind: type[LoraConfig | DoraConfig | FullConfig], tmp_path: Path
) -> None:
    override = f"tuning.kind={kind.model_fields['kind'].default}"
    assert load(write(tmp_path, SMALLEST), (override,)).config.tuning == kind()
