"""What the survey finds of paths, pictures, the run folder, the disk and the device."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from surefoot.config.load import load
from surefoot.finding import Finding
from surefoot.survey import Survey, resolve_path, survey
from tests.run_files import write_pictures, write_run


def survey_of(run_file: Path) -> Survey:
    return survey(load(run_file))


def only(findings: tuple[Finding, ...]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


@pytest.mark.parametrize(
    "given", ["nowhere", "./a/b", "/a/b", "a/b/c", "~nobody-of-that-name/x", "x" * 300, "loop/x"]
)
def test_model_path_that_leads_nowhere_is_named(given: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    finding = only(survey_of(write_run(tmp_path, {"model.path": given})).findings)
    assert finding.code == ("SF021" if given == "loop/x" else "SF020")
    assert finding.values == {"given": given}


def test_paths_start_at_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    run_file = write_run(inner, {"folder": "../out"})
    monkeypatch.chdir(tmp_path)
    for name in (run_file, Path("inner/run.toml")):
        loaded = load(name)
        assert resolve_path(loaded, "x/../y") == inner / "y"
        assert resolve_path(loaded, "/x") == Path("/x")
        found = survey(loaded)
        assert found.run_folder == tmp_path / "out/cat"
        assert [example.path.parent for example in found.data[0].examples] == 2 * [
            inner / "pictures"
        ]


def test_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    loaded = load(write_run(tmp_path))
    assert resolve_path(loaded, "~/x") == tmp_path / "home/x"


def test_problems_of_pictures_say_which_folder_they_are_in(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    write_pictures(tmp_path / "held out", 3)
    (tmp_path / "held out/1.txt").unlink()
    found = survey_of(
        write_run(
            tmp_path,
            {
                "data.folders": [{"path": "pictures"}, {"path": "bare"}, {"path": "run.toml"}],
                "validation.folder": "held out",
            },
        )
    )
    assert [(finding.code, finding.path) for finding in found.findings] == [
        ("SF033", "data.folders.1.path"),
        ("SF031", "data.folders.2.path"),
        ("SF037", "validation.folder"),
    ]
    assert [len(scan.examples) for scan in found.data] == [2, 0, 0]
    assert len(found.validation.examples) == 2


def test_captions_may_be_optional(tmp_path: Path) -> None:
    run_file = write_run(tmp_path, {"captions.missing": "empty"})
    (tmp_path / "pictures/0.txt").unlink()
    found = survey_of(run_file)
    assert found.findings == ()
    assert [example.captions for example in found.data[0].examples] == [("",), ("noise 1",)]


def test_without_validation_there_is_nothing_held_out(tmp_path: Path) -> None:
    assert survey_of(write_run(tmp_path)).validation.examples == ()
    found = survey_of(write_run(tmp_path, {"validation.folder": "builtin"}))
    assert len(found.validation.examples) == 100


def _file_in_the_way(folder: Path) -> None:
    (folder / "runs").write_text("", encoding="utf-8")


def _file_of_that_name(folder: Path) -> None:
    (folder / "runs").mkdir()
    (folder / "runs/cat").write_text("", encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "blocking"), [(_file_in_the_way, "runs"), (_file_of_that_name, "runs/cat")]
)
def test_file_where_the_run_folder_should_go_is_named(
    spoil: Callable[[Path], None], blocking: str, tmp_path: Path
) -> None:
    spoil(tmp_path)
    found = survey_of(write_run(tmp_path))
    assert only(found.findings).code == "SF040"
    assert only(found.findings).values == {
        "folder": str(tmp_path / "runs/cat"),
        "blocking": str(tmp_path / "runs/cat" if blocking == "runs/cat" else tmp_path / "runs"),
    }
    assert found.free_bytes == -1


@pytest.mark.parametrize("folder", ["/proc/nowhere", "x" * 300])
def test_run_folder_that_cannot_be_written_is_named(folder: str, tmp_path: Path) -> None:
    found = survey_of(write_run(tmp_path, {"folder": folder}))
    finding = only(found.findings)
    assert (finding.code, finding.path) == ("SF041", "folder")
    assert finding.values["folder"] == str(tmp_path / folder / "cat")
    assert found.free_bytes == -1


def test_run_folder_is_not_made_by_looking(tmp_path: Path) -> None:
    before = sorted(path.name for path in write_run(tmp_path).parent.iterdir())
    survey_of(tmp_path / "run.toml")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_checkpoints_of_the_run_itself_count_as_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage)
    checkpoints = tmp_path / "runs/cat/checkpoints/step-000001"
    checkpoints.mkdir(parents=True)
    (checkpoints / "trained.safetensors").write_bytes(b"\0" * 300)
    (tmp_path / "runs/.cache/latents/x").mkdir(parents=True)
    (tmp_path / "runs/.cache/latents/x/y.safetensors").write_bytes(b"\0" * 70)
    found = survey_of(write_run(tmp_path))
    assert found.free_bytes == 1300
    assert found.cached_bytes() == 70


@pytest.mark.parametrize(
    ("asked", "device"), [("cpu", "cpu"), ("cuda", "cuda"), ("cuda:1", "cuda"), ("mps", "mps")]
)
def test_device_is_the_one_asked_for(asked: str, device: str, tmp_path: Path) -> None:
    assert survey_of(write_run(tmp_path, {"train.device": asked})).device == device


@pytest.mark.parametrize(("built_for", "device"), [("'12.8'", "cuda"), ("None", "cpu")])
def test_automatic_device_is_cuda_where_the_driver_and_a_torch_for_it_are(
    built_for: str, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_file = write_run(tmp_path, {"train.device": "auto"})
    (tmp_path / "version.py").write_text(f"cuda: Optional[str] = {built_for}\n", encoding="utf-8")
    torch = importlib.util.spec_from_file_location("torch", tmp_path / "__init__.py")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: torch)
    assert survey_of(run_file).device == device
