"""Any bytes as an input file, through the command line: what must hold whatever they are."""

from __future__ import annotations

import io
import os
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save
from typer.testing import CliRunner

from surefoot.cli import command_line
from tests.importers.readings import FILES

RUN_TOML = """\
format = 1
name = "cat"
[model]
path = "builtin"
[tuning]
kind = "dora"
rank = 16
alpha = 16.0
[optimizer]
kind = "adafactor"
lr = 1e-2
scale_parameter = "weight"
[schedule]
kind = "cosine"
[data]
resolution = 64
[[data.folders]]
path = "pictures"
[train]
steps = 120
batch_size = 2
[[waive]]
code = "SF107"
reason = "known"
"""


def _adapter() -> bytes:
    """A LoRA of two layers with a header of its own."""
    tensors = {
        f"lora_unet_{layer}.{leaf}": np.ones(shape, dtype=np.float32)
        for layer in ("mid_block_attentions_0_proj_in", "conv_in")
        for leaf, shape in (
            ("lora_down.weight", (2, 4)),
            ("lora_up.weight", (4, 2)),
            ("alpha", ()),
        )
    }
    return save(tensors, {"ss_network_module": "networks.lora", "ss_network_dim": "2"})


def _picture(form: str) -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize((24, 16)).convert("RGB").save(out, form)
    return out.getvalue()


# Whole files to start from, by name; the name decides the reader.
CONFIGS: dict[str, bytes] = {"run.toml": RUN_TOML.encode()} | {
    path.name: path.read_bytes() for path in sorted(FILES.iterdir()) if path.is_file()
}
ADAPTERS: dict[str, bytes] = {"lora.safetensors": _adapter()}
PICTURES: dict[str, bytes] = {
    f"cat.{form.lower()}": _picture(form) for form in ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
}


def check_config(name: str, content: bytes, folder: Path) -> None:
    """`surefoot check` on a config of any trainer."""
    _unharmed(["check", name], {name: content}, folder)


def import_config(name: str, content: bytes, folder: Path) -> None:
    """`surefoot import`, which writes one file at most."""
    _unharmed(["import", name, "--out", "made.toml"], {name: content}, folder, "made.toml")


def inspect_adapter(name: str, content: bytes, folder: Path) -> None:
    """`surefoot inspect` on an adapter's file."""
    _unharmed(["inspect", name], {name: content}, folder)


def check_picture(name: str, content: bytes, folder: Path) -> None:
    """`surefoot check` on a run with one picture."""
    files = {
        "run.toml": RUN_TOML.encode(),
        f"pictures/{name}": content,
        "pictures/cat.txt": b"a cat",
    }
    _unharmed(["check", "run.toml"], files, folder)


Target = Callable[[str, bytes, Path], None]
TARGETS: dict[str, tuple[Target, dict[str, bytes]]] = {
    "check": (check_config, CONFIGS),
    "import": (import_config, CONFIGS),
    "inspect": (inspect_adapter, ADAPTERS),
    "picture": (check_picture, PICTURES),
}


def _unharmed(
    arguments: list[str], files: dict[str, bytes], folder: Path, may_make: str = ""
) -> None:
    """Runs the command in `folder`: an exit code of its own, no traceback, and no other write."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    before, here = _listing(folder), Path.cwd()
    os.chdir(folder)
    try:
        environment = {"SUREFOOT_LANG": "en", "TERM": "dumb", "COLUMNS": "200"}
        result = CliRunner().invoke(command_line(arguments[0]), arguments, env=environment)
    finally:
        os.chdir(here)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise AssertionError(
            "".join(traceback.format_exception(result.exception))
        ) from result.exception
    assert result.exit_code in (0, 1, 2), result.output
    assert "Traceback" not in result.output
    made = folder / may_make
    if may_make and made.exists():
        assert result.exit_code == 0
        made.unlink()
    assert _listing(folder) == before


def _listing(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
