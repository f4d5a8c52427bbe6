"""The files that a config names: read where they lie beside it, accounted for, missed in words."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from surefoot.config.text_file import MOST_BYTES
from surefoot.finding import Refused
from surefoot.importers.judge import Reading
from surefoot.importers.reading import readings
from surefoot.importers.recognise import recognise
from surefoot.importers.record import Trainer
from surefoot.importers.render import account_lines
from surefoot.importers.run_file import run_toml
from tests.importers.readings import FILES, reading_of

CONCEPTS = """[
  {"__version": 2, "path": "/pictures/cat", "balancing": 3, "enabled": true, "name": "cat",
   "image": {"enable_random_flip": true}, "text": {"prompt_source": "sample"}},
  {"path": "/pictures/held-out", "type": "VALIDATION"},
  {"path": "/pictures/off", "enabled": false, "colour": 1},
  {"path": "/pictures/dog", "repeats": 2.4}
]"""
DATASETS = """
[general]
num_repeats = 4
flip_aug = true
shuffle_caption = true
keep_tokens = 2
caption_prefix = "a photo,"
caption_extension = ".txt"
[[datasets]]
resolution = [640, 512]
batch_size = 3
[[datasets.subsets]]
image_dir = "/pictures/cat"
[[datasets.subsets]]
image_dir = "/pictures/dog"
num_repeats = 7
flip_aug = false
num_repats = 1
[[datasets]]
resolution = 768
[[datasets.subsets]]
image_dir = "/pictures/usual"
is_reg = true
"""
MUSUBI = """
[general]
resolution = [960, 544]
batch_size = 2
[[datasets]]
image_directory = "/pictures/cat"
cache_directory = "/cache"
num_repeats = 2
[[datasets]]
video_directory = "/films"
"""
BACKENDS = """[
  {"id": "cat", "type": "local", "instance_data_dir": "/pictures/cat", "repeats": 4,
   "resolution": 1.05, "resolution_type": "area", "crop": false, "caption_strategy": "textfile"},
  {"id": "dog", "type": "local", "instance_data_dir": "/pictures/dog", "resolution": 1024,
   "resolution_type": "pixel_area"},
  {"id": "off", "type": "local", "instance_data_dir": "/pictures/off", "disabled": true},
  {"id": "far", "type": "aws", "instance_data_dir": "", "aws_bucket_name": "b", "made_up": 1},
  {"id": "texts", "dataset_type": "text_embeds", "type": "local", "cache_dir": "/cache"}
]"""
DIRECTORIES = """
resolutions = [768, 1024]
enable_ar_bucket = true
[[directory]]
path = "/pictures/cat"
num_repeats = 5
[[directory]]
path = "/pictures/dog"
resolutions = [[512, 768]]
made_up = 2
"""


@dataclass(frozen=True)
class Case:
    """A config, what it names, and what comes of it."""

    trainer: Trainer
    config: str
    rewritten: tuple[str, str]
    named: str
    content: str
    folders: list[tuple[str, int]]
    expected: dict[str, object]
    unknown: str


CASES = {
    case.trainer: case
    for case in (
        Case(
            "onetrainer", "onetrainer_adaptive.json", ("training_concepts/cat.json", "named.json"),
            "named.json", CONCEPTS, [("/pictures/cat", 3), ("/pictures/dog", 2)],
            {"data.flip": True, "validation.folder": "/pictures/held-out"},
            "",
        ),
        Case(
            "sd_scripts", "sd_scripts.toml",
            ('train_data_dir = "/data/cat"', 'dataset_config = "named.toml"'),
            "named.toml", DATASETS, [("/pictures/cat", 4), ("/pictures/dog", 7)],
            {"data.flip": True, "data.resolution": 640, "train.batch_size": 3,
             "captions.shuffle": True, "captions.keep_tags": 2, "captions.prefix": "a photo, "},
            "named.toml: datasets.0.subsets.1.num_repats",
        ),
        Case(
            "musubi", "musubi.sh", ("d.toml", "named.toml"), "named.toml", MUSUBI,
            [("/pictures/cat", 2)], {"data.resolution": 960, "train.batch_size": 2}, "",
        ),
        Case(
            "simpletuner", "simpletuner.json", ("config/mdb.json", "named.json"), "named.json",
            BACKENDS, [("/pictures/cat", 5), ("/pictures/dog", 1)], {"data.resolution": 1024},
            "named.json: 3.made_up",
        ),
        Case(
            "diffusion_pipe", "diffusion_pipe.toml", ("cat_dataset.toml", "named.toml"),
            "named.toml", DIRECTORIES, [("/pictures/cat", 5), ("/pictures/dog", 1)],
            {"data.resolution": 768}, "named.toml: directory.1.made_up",
        ),
    )
}  # fmt: skip
EVERY = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def written(case: Case, folder: Path, name: str = "") -> Path:
    """The config, which names the case's file or another."""
    old, new = case.rewritten
    text = (FILES / case.config).read_text(encoding="utf-8")
    assert old in text
    path = folder / case.config
    path.write_text(text.replace(old, new.replace(case.named, name or case.named)), "utf-8")
    return path


def read(case: Case, folder: Path) -> Reading:
    (folder / case.named).write_text(case.content, encoding="utf-8")
    return reading_of(written(case, folder), case.trainer)


@EVERY
def test_folders_and_what_run_toml_has_once_come_from_the_file(case: Case, tmp_path: Path) -> None:
    reading = read(case, tmp_path)
    found = [(folder.path, folder.repeats) for folder in reading.config.data.folders]
    assert found == case.folders
    assert {path: reading.run.settings[path].value for path in case.expected} == case.expected


@EVERY
def test_every_key_of_the_file_is_accounted_for_by_the_files_name(
    case: Case, tmp_path: Path
) -> None:
    run = read(case, tmp_path).run
    noted = {note.key for note in run.notes if note.key.startswith(f"{case.named}: ")}
    # Keys with a value, as they are counted by eye: those of a table in JSON have none.
    written_there = (
        case.content.count(" = ") + case.content.count('":') - case.content.count('": {')
    )
    assert len(noted) == written_there
    shown = "\n".join(line.plain for line in account_lines(run, case.config, everything=True))
    assert all(key in shown for key in noted)


@EVERY
def test_unknown_key_of_the_file_is_said(case: Case, tmp_path: Path) -> None:
    findings = read(case, tmp_path).findings
    said = {item.path for item in findings if item.code in ("SF701", "SF720")}
    assert not case.unknown or case.unknown in said


def test_misspelt_key_of_a_data_set_has_its_likeness(tmp_path: Path) -> None:
    found = next(
        item for item in read(CASES["sd_scripts"], tmp_path).findings if item.code == "SF720"
    )
    assert found.values["near"] == "num_repeats"


@EVERY
def test_file_of_the_same_name_is_found_beside_a_config_that_names_another_folder(
    case: Case, tmp_path: Path
) -> None:
    (tmp_path / case.named).write_text(case.content, encoding="utf-8")
    path = written(case, tmp_path, f"elsewhere/{case.named}")
    reading = reading_of(path, case.trainer)
    assert [folder.path for folder in reading.config.data.folders] == [
        folder for folder, _repeats in case.folders
    ]


def _nothing(_path: Path) -> None:
    pass


def _broken(path: Path) -> None:
    path.write_text("{ nothing [ of a format", encoding="utf-8")


def _binary(path: Path) -> None:
    path.write_bytes(b"\0\1\2")


def _huge(path: Path) -> None:
    path.write_bytes(b" " * (MOST_BYTES + 1))


def _deep(path: Path) -> None:
    path.write_text("a = " + "[" * 5_000 if path.suffix == ".toml" else "[" * 5_000, "utf-8")


def _pipe(path: Path) -> None:
    os.mkfifo(path)  # to open it would wait for a writer for ever


@pytest.mark.parametrize("make", [_nothing, _broken, _binary, _huge, _deep, _pipe])
@EVERY
def test_absent_or_unreadable_file_is_a_note_and_the_import_goes_on(
    case: Case, make: Callable[[Path], None], tmp_path: Path
) -> None:
    if make is _pipe and not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    make(tmp_path / case.named)
    path = written(case, tmp_path)
    theirs = recognise(path)
    assert theirs is not None
    for reading in readings(theirs, path):
        note = next(note for note in reading.run.notes if note.given == f'"{case.named}"')
        assert note.fate == "dropped"
        assert note.matters
        text = run_toml(reading.run, path.name)
        assert [item["path"] for item in tomllib.loads(text)["data"]["folders"]] == ["pictures"]


def test_wrong_value_of_the_file_names_the_file(tmp_path: Path) -> None:
    case = CASES["diffusion_pipe"]
    (tmp_path / case.named).write_text('[[directory]]\npath = "a"\nnum_repeats = "many"\n', "utf-8")
    with pytest.raises(Refused) as refused:
        reading_of(written(case, tmp_path), case.trainer)
    assert [item.path for item in refused.value.findings] == ["named.toml: directory.0.num_repeats"]


def test_prompts_come_from_the_file_of_samples(tmp_path: Path) -> None:
    text = (FILES / "onetrainer_adaptive.json").read_text(encoding="utf-8")
    path = tmp_path / "config.json"
    path.write_text(
        text.replace('"epochs"', '"sample_definition_file_name": "s.json", "epochs"'), "utf-8"
    )
    (tmp_path / "s.json").write_text(
        '[{"enabled": true, "prompt": "a cat"}, {"enabled": false, "prompt": "a dog"}]', "utf-8"
    )
    reading = reading_of(path, "onetrainer")
    assert reading.config.preview.prompts == ("a cat",)
    assert "SF701" not in {item.code for item in reading.findings if item.path.startswith("s.json")}
