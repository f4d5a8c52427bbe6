"""run.toml to a config: every problem named at once, and nothing taken for what it is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from surefoot.config.load import UNIONS, load, load_rest
from surefoot.config.optimizer import AdafactorConfig, AdamWConfig
from surefoot.config.run import RunConfig
from surefoot.config.tuning import DoraConfig, FullConfig, LoraConfig
from surefoot.finding import Finding, Refused
from tests.run_files import write_run

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
        ("captions.dropout", "nan", "a finite number"),
        ("captions.dropout", "inf", "a finite number"),
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
        ("train.precision", '"fp8"', '"fp32" / "bf16" / "fp16"'),
        (
            "schedule.kind",
            '"cosin"',
            '"constant" / "linear" / "cosine" / "cosine_restarts" / "polynomial" / '
            '"inverse_sqrt" / "rex"',
        ),
        ("schedule.warmup_steps", "0.1", "a whole number"),
        ("schedule.warmup_fraction", "1.0", "< 1.0"),
        ("optimizer.kind", '"adafactr"', " / ".join(f'"{kind}"' for kind in UNIONS["optimizer"])),
        ("tuning.kind", "3", '"full" / "lora" / "dora" / "loha" / "lokr"'),
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
    assert known == ["kind", "lr", "beta1", "beta2", "eps", "weight_decay", "part_lr"]


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


@pytest.mark.parametrize("kind", [LoraConfig, DoraConfig, FullConfig])
def test_kind_chooses_the_section(
    kind: type[LoraConfig | DoraConfig | FullConfig], tmp_path: Path
) -> None:
    override = f"tuning.kind={kind.model_fields['kind'].default}"
    assert load(write(tmp_path, SMALLEST), (override,)).config.tuning == kind()


def test_more_than_a_million_steps_are_refused(tmp_path: Path) -> None:
    run_file = write_run(tmp_path, {"train.steps": 1_000_001})
    with pytest.raises(Refused) as refused:
        load(run_file)
    assert [finding.path for finding in refused.value.findings] == ["train.steps"]
