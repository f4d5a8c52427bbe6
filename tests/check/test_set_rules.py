"""Rules about the model's files and the captions, on files of their own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from surefoot.builtin import BUILTIN_MODEL
from surefoot.check import memory_rules
from tests.check.test_rules import with_code
from tests.run_files import look, write_run


def test_long_captions_are_counted_as_the_tokenizer_does_at_least(tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(str(BUILTIN_MODEL / "tokenizer"))
    run_file = write_run(tmp_path)
    words = ["cat,", "x_y", "2026", "don't", "--", "½", "猫", "(a:1.2)"]
    for repeats in (1, 6, 7, 8, 20):
        caption = " ".join(words * repeats)
        (tmp_path / "pictures/0.txt").write_text(caption, encoding="utf-8")
        found = with_code(look(run_file)[2], "SF308")
        tokens = len(tokenizer(caption, truncation=False).input_ids) - 2
        assert not found or 75 < int(found[0].values["tokens"]) <= tokens
    assert found[0].values["example"] == "0.png"


def test_caption_of_a_few_words_is_not_too_long(tmp_path: Path) -> None:
    run_file = write_run(tmp_path)
    for count, told in ((75, False), (76, True)):
        text = " ".join(["cat"] * count)
        (tmp_path / "pictures/0.txt").write_text(text, encoding="utf-8")
        assert bool(with_code(look(run_file)[2], "SF308")) == told


def test_schedule_that_ends_without_signal_is_not_for_predicted_noise(tmp_path: Path) -> None:
    shutil.copytree(BUILTIN_MODEL, tmp_path / "model")
    file = tmp_path / "model/scheduler/scheduler_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**settings, "rescale_betas_zero_snr": True}), encoding="utf-8")
    run_file = write_run(tmp_path, {"model.path": "model", "objective.snr_gamma": 5.0})
    findings = look(run_file)[2]
    assert [item.code for item in findings] == ["SF204", "SF203"]
    assert [change.value for change in findings[0].changes] == ['"off"']
    mended = look(run_file, "model.prediction=v_prediction")[2]
    assert {item.code for item in mended} == {"SF201", "SF206"}
    assert [item.code for item in look(run_file, "objective.snr_gamma=off")[2]] == ["SF203"]


@pytest.mark.parametrize(("kind", "package"), [("nf4", "bitsandbytes"), ("torchao_fp8", "torchao")])
def test_base_that_needs_a_library_which_is_not_there_is_refused(
    kind: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_file = write_run(tmp_path)
    for there in (True, False):
        monkeypatch.setattr(memory_rules, "installed", lambda _package, there=there: there)
        found = with_code(look(run_file, f"tuning.base_weights={kind}")[2], "SF138")
        assert [item.values["package"] for item in found] == ([] if there else [package])
