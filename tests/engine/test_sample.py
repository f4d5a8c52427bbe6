"""Drawing with a run: what is refused, and where pictures go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from surefoot.engine.assemble import open_device
from surefoot.engine.sample import sample_run
from surefoot.finding import Refused
from tests.engine.small_runs import prepare, settings, train, write_model, write_pictures


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    model = write_model(tmp_path / "model")
    written = settings(model, write_pictures(tmp_path / "pictures", 3), model)
    written["validation"] = {"folder": "off"}
    written["train"] |= {"steps": 1, "batch_size": 1}
    return written


def draw(run_folder: Path, *prompts: str, out: Path | None = None) -> Path:
    return sample_run(run_folder, prompts, seed=0, guidance=1.0, steps=1, out=out)


def test_each_drawing_gets_a_folder_of_its_own(values: dict[str, Any], tmp_path: Path) -> None:
    small = prepare(tmp_path, values)
    train(small)
    sheets = [draw(small.folder, "a"), draw(small.folder, "a", "b")]
    assert [sheet.parent.name for sheet in sheets] == ["sample-001", "sample-002"]
    for sheet, count in zip(sheets, (1, 2), strict=True):
        assert sheet.is_file()
        for name in ("base", "trained"):
            assert len(list((sheet.parent / name).glob("*.png"))) == count
    elsewhere = draw(small.folder, "a", out=tmp_path / "elsewhere")
    assert elsewhere == tmp_path / "elsewhere" / "sheet.png"
    # Drawings of one's own are no previews of the run.
    assert train(small).sheet is None


def codes(refused: pytest.ExceptionInfo[Refused]) -> list[str]:
    return [finding.code for finding in refused.value.findings]


def test_run_without_prompts_needs_some(values: dict[str, Any], tmp_path: Path) -> None:
    small = prepare(tmp_path, values)
    train(small)
    with pytest.raises(Refused) as refused:
        draw(small.folder)
    assert codes(refused) == ["SF048"]


def test_folder_that_is_no_run_is_refused(values: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        draw(tmp_path / "nowhere", "a")
    assert codes(refused) == ["SF047"]
    small = prepare(tmp_path, values)
    small.folder.mkdir(parents=True)
    (small.folder / "plan.json").write_text("{}", encoding="utf-8")
    with pytest.raises(Refused) as refused:
        draw(small.folder, "a")
    assert codes(refused) == ["SF047"]


def test_run_without_a_checkpoint_is_refused(values: dict[str, Any], tmp_path: Path) -> None:
    small = prepare(tmp_path, values)
    train(small)
    for manifest in small.folder.rglob("manifest.json"):
        manifest.unlink()
    with pytest.raises(Refused) as refused:
        draw(small.folder, "a")
    assert codes(refused) == ["SF047"]


@pytest.mark.parametrize("name", ["cuda:93", "nonsense"])
def test_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(Refused) as refused:
        open_device(name)
    assert codes(refused) == ["SF045"]
