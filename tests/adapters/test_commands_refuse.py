"""What the verbs refuse: every fault in a sentence, all at once, and nothing written."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from surefoot.adapters.model_weights import ModelWeights
from surefoot.formats.adapter_file import open_adapter
from tests.adapters.adapter_files import LAYERS, loras, write
from tests.run_files import codes, surefoot


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"a": 1}))


def a_whole_model(path: Path) -> None:
    save_file({"model.diffusion_model.conv_in.weight": torch.ones(2)}, path)


def an_unknown_key(path: Path) -> None:
    save_file({**load_file(path), "unet.conv_in.lora_x.weight": torch.ones(2)}, path)


def missing(path: Path) -> None:
    path.unlink()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


SPOILT = (truncated, pickled, a_whole_model, an_unknown_key, missing, a_folder)


@pytest.mark.parametrize("spoil", SPOILT)
@pytest.mark.parametrize("verb", ["inspect", "convert", "merge", "resize"])
def test_file_that_cannot_be_used_is_refused_in_a_sentence_by_every_verb(
    verb: str, spoil: Callable[[Path], None], adapter: Path, model_folder: Path, tmp_path: Path
) -> None:
    spoil(adapter)
    before = names(tmp_path)
    out = ("--out", tmp_path / "out")
    arguments = {
        "inspect": (adapter,),
        "convert": (adapter, "--to", "kohya", *out),
        "merge": (model_folder, adapter, *out),
        "resize": (adapter, "--rank", "1", *out),
    }[verb]
    result = surefoot(verb, *arguments)
    assert (result.exit_code, codes(result)) == (2, ["SF070"]), result.output
    assert str(adapter) in result.output
    assert names(tmp_path) == before


def test_all_faults_are_told_at_once(adapter: Path, model_folder: Path, tmp_path: Path) -> None:
    truncated(adapter)
    (tmp_path / "out").write_text("mine", encoding="utf-8")
    result = surefoot(
        "merge",
        tmp_path / "nowhere",
        adapter,
        tmp_path / "b.safetensors",
        "--out",
        tmp_path / "out",
    )
    assert result.exit_code == 2
    assert codes(result) == ["SF074", "SF070", "SF070", "SF071"]
    result = surefoot(
        "extract", model_folder, "nowhere", "--energy", "1.5", "--rank", "-1", "--out", adapter
    )
    assert codes(result) == ["SF078", "SF078", "SF074", "SF071"]
    result = surefoot("resize", adapter, "--out", tmp_path / "o.safetensors")
    assert codes(result) == ["SF078", "SF070"]


def test_what_is_there_is_replaced_only_when_told(
    adapter: Path, model_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o.safetensors"
    out.write_text("mine", encoding="utf-8")
    convert = ("convert", adapter, "--to", "kohya", "--out", out)
    assert codes(surefoot(*convert)) == ["SF071"]
    assert out.read_text(encoding="utf-8") == "mine"
    assert surefoot(*convert, "--force").exit_code == 0
    assert open_adapter(out).layers
    # A folder is replaced only by a model, and only if it is one.
    folder = tmp_path / "things"
    (folder / "precious").mkdir(parents=True)
    merge = ("merge", model_folder, adapter, "--out", folder, "--force")
    assert codes(surefoot(*merge)) == ["SF087"]
    assert (folder / "precious").is_dir()
    (folder / "model_index.json").write_text("{}", encoding="utf-8")
    assert surefoot(*merge).exit_code == 0
    assert not (folder / "precious").exists()
    assert (folder / "unet").is_dir()


def test_source_is_never_replaced(adapter: Path, model_folder: Path, tmp_path: Path) -> None:
    content = adapter.read_bytes()
    link = tmp_path / "link.safetensors"
    link.symlink_to(adapter)
    for out in (adapter, link):
        result = surefoot("resize", adapter, "--rank", "1", "--out", out, "--force")
        assert codes(result) == ["SF073"]
    assert adapter.read_bytes() == content
    copy = shutil.copytree(model_folder, tmp_path / "model")
    for out in (copy, copy / "inside"):
        result = surefoot("merge", copy, adapter, "--out", out, "--force")
        assert codes(result) == ["SF073"]


@pytest.mark.skipif(os.name == "nt", reason="there is no /proc")
def test_folder_that_cannot_be_written_is_told_in_a_sentence(
    adapter: Path, model_folder: Path, tmp_path: Path
) -> None:
    for out in ("/proc/o.safetensors", tmp_path / "none" / "o.safetensors"):
        for arguments in (
            ("convert", adapter, "--to", "kohya"),
            ("merge", model_folder, adapter),
            ("resize", adapter, "--rank", "1"),
        ):
            result = surefoot(*arguments, "--out", out)
            assert (result.exit_code, codes(result)) == (2, ["SF072"]), result.output


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda path: path.mkdir(), "SF075"),
        (lambda path: path.with_suffix(".ckpt").write_bytes(b"x"), "SF024"),
        (lambda path: path.write_bytes(b"x"), "SF024"),
    ],
)
def test_model_that_cannot_be_used_is_refused(
    make: Callable[[Path], object], code: str, adapter: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model"
    make(path)
    given = path if path.exists() else path.with_suffix(".ckpt")
    result = surefoot("merge", given, adapter, "--out", tmp_path / "out")
    assert (result.exit_code, codes(result)) == (2, [code])
    assert codes(surefoot("merge", adapter, adapter, "--out", tmp_path / "out")) == ["SF075"]


def test_adapter_with_nan_is_inspected_and_otherwise_refused(
    model: ModelWeights, model_folder: Path, tmp_path: Path
) -> None:
    layers = loras(model)
    layers[LAYERS[0]]["lora_up"][0] = torch.nan
    path, out = write(tmp_path / "a.safetensors", layers).path, ("--out", tmp_path / "out")
    for arguments in (
        ("convert", path, "--to", "diffusers", *out),
        ("merge", model_folder, path, *out),
        ("resize", path, "--rank", "1", *out),
    ):
        result = surefoot(*arguments)
        assert (result.exit_code, codes(result)) == (2, ["SF081"]), result.output
        assert f"{LAYERS[0]}.lora_up" in result.output
    assert names(tmp_path) == ["a.safetensors"]


@pytest.mark.parametrize("weight", ["nan", "inf", "-inf", "1e400"])
def test_weight_that_is_no_number_is_refused(
    weight: str, adapter: Path, model_folder: Path, tmp_path: Path
) -> None:
    result = surefoot("merge", model_folder, f"{adapter}={weight}", "--out", tmp_path / "out")
    assert (result.exit_code, codes(result)) == (2, ["SF078"]), result.output
    assert weight in result.output
    assert names(tmp_path) == ["a.safetensors"]
