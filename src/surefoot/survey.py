"""What is there: the model's files and weights, the pictures, the device, the disk. No torch."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from surefoot.builtin import BUILTIN_MODEL, BUILTIN_TRAIN, BUILTIN_VALIDATION
from surefoot.config.load import Loaded
from surefoot.config.run import FolderConfig, RunConfig
from surefoot.data.scan import ProblemKind, Scan, scan_folder
from surefoot.families.facts import FAMILIES, Prediction
from surefoot.finding import Finding, Level
from surefoot.formats.headers import HeaderError, TensorHeader, read_header, sampled_rms

ModelSource = Literal["folder", "single_file"]
Device = Literal["cpu", "cuda", "mps"]


@dataclass(frozen=True)
class PartSurvey:
    """The weights of one part.

    Attributes:
        file: The file that holds them.
        shapes: Name of each tensor, without the prefix of a single file, to its shape.
        headers: The same names to their places in the file.
    """

    file: Path
    headers: dict[str, TensorHeader]

    def rms(self, name: str) -> float:
        """Root mean square of one tensor, sampled."""
        return sampled_rms(self.file, self.headers[name])


@dataclass(frozen=True)
class ModelSurvey:
    """The model as found; figures are 0 where a problem kept them from being read."""

    source: ModelSource
    path: Path
    parts: dict[str, PartSurvey]
    prediction: Prediction
    sample_size: int
    vae_factor: int
    unet_levels: int


@dataclass(frozen=True)
class Survey:
    """Everything found, and what was wrong with it."""

    model: ModelSurvey
    data: tuple[Scan, ...]
    validation: Scan
    device: Device
    free_bytes: int
    run_folder: Path
    cores: int
    findings: tuple[Finding, ...]


def survey(loaded: Loaded) -> Survey:
    """Looks at everything that the run names; problems become findings, all at once."""
    config = loaded.config
    findings: list[Finding] = []
    model = _survey_model(loaded, findings)
    need_captions = config.data.captions == "required"
    data = tuple(
        _survey_pictures(loaded, folder, index, need_captions, findings)
        for index, folder in enumerate(config.data.folders)
    )
    run_folder = resolve_path(loaded, config.folder) / config.name
    return Survey(
        model=model,
        data=data,
        validation=_survey_validation(loaded, need_captions, findings),
        device=_device(config),
        free_bytes=_free_bytes(run_folder, findings),
        run_folder=run_folder,
        cores=os.cpu_count() or 1,
        findings=tuple(findings),
    )


def resolve_path(loaded: Loaded, path: str) -> Path:
    """A path of a run.toml, which is relative to the file's own folder."""
    return (loaded.folder / Path(path).expanduser()).resolve()


def _survey_pictures(
    loaded: Loaded, folder: FolderConfig, index: int, need_captions: bool, findings: list[Finding]
) -> Scan:
    path = BUILTIN_TRAIN if folder.path == "builtin" else resolve_path(loaded, folder.path)
    scan = scan_folder(path, need_captions=need_captions)
    findings.extend(_scan_findings(scan, f"data.folders.{index}.path"))
    return scan


def _survey_validation(loaded: Loaded, need_captions: bool, findings: list[Finding]) -> Scan:
    folder = loaded.config.validation.folder
    if folder == "off":
        return Scan(examples=(), problems=())
    path = BUILTIN_VALIDATION if folder == "builtin" else resolve_path(loaded, folder)
    scan = scan_folder(path, need_captions=need_captions)
    findings.extend(_scan_findings(scan, "validation.folder"))
    return scan


_SCAN_CODES: dict[ProblemKind, str] = {
    "folder_missing": "SF030",
    "folder_not_a_folder": "SF031",
    "folder_unreadable": "SF032",
    "folder_without_images": "SF033",
    "image_empty": "SF034",
    "image_truncated": "SF035",
    "image_not_readable": "SF036",
    "image_damaged": "SF036",
    "image_mode_unsupported": "SF036",
    "image_profile_unusable": "SF036",
    "caption_missing": "SF037",
    "caption_not_utf8": "SF038",
    "caption_unreadable": "SF039",
    "caption_empty": "SF301",
    "caption_without_image": "SF302",
    "caption_repeated": "SF305",
    "folder_repeated": "SF306",
}


def _scan_findings(scan: Scan, path: str) -> list[Finding]:
    findings: list[Finding] = []
    for problem in scan.problems:
        code = _SCAN_CODES[problem.kind]
        level: Level = "error" if code.startswith("SF0") else "warning"
        values = {"file": str(problem.path), "detail": problem.detail}
        findings.append(Finding(code, level, path, dict(values)))
    return findings


def _survey_model(loaded: Loaded, findings: list[Finding]) -> ModelSurvey:
    config = loaded.config.model
    path = BUILTIN_MODEL if config.path == "builtin" else resolve_path(loaded, config.path)
    if not path.exists() and _looks_like_hub_id(config.path):
        path = _cached(config.path, path)
    if not path.exists():
        code = "SF021" if _looks_like_hub_id(config.path) else "SF020"
        findings.append(Finding(code, "error", "model.path", {"given": config.path}))
        return _unknown_model("folder", path)
    if path.is_file():
        return _survey_single_file(loaded, path, findings)
    return _survey_folder(loaded.config, path, findings)


def _unknown_model(source: ModelSource, path: Path) -> ModelSurvey:
    return ModelSurvey(source, path, {}, "epsilon", 0, 0, 0)


def _looks_like_hub_id(path: str) -> bool:
    return path.count("/") == 1 and not path.startswith((".", "/", "~")) and "\\" not in path


def _cached(hub_id: str, otherwise: Path) -> Path:
    """The folder of a model that was downloaded before; nothing is downloaded here."""
    # Imported late: a third of a second that only hub ids pay.
    from huggingface_hub import snapshot_download  # pyright: ignore[reportUnknownVariableType]
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError):
        return otherwise


def _survey_folder(config: RunConfig, path: Path, findings: list[Finding]) -> ModelSurvey:
    facts = FAMILIES[config.model.family]
    missing = [name for name in facts.components if not _has_component(path / name)]
    if not (path / "model_index.json").is_file():
        missing.insert(0, "model_index.json")
    if missing:
        values = {"folder": str(path), "missing": ", ".join(missing)}
        findings.append(Finding("SF022", "error", "model.path", dict(values)))
        return _unknown_model("folder", path)
    try:
        unet = _read_json(path / "unet" / "config.json")
        vae = _read_json(path / "vae" / "config.json")
        scheduler = _read_json(path / "scheduler" / "scheduler_config.json")
        parts = {name: _read_part(path / name) for name in facts.parts}
    except (HeaderError, ValueError, OSError) as error:
        values = {"file": str(path), "reason": str(error)}
        findings.append(Finding("SF023", "error", "model.path", dict(values)))
        return _unknown_model("folder", path)
    factor = 2 ** (len(cast(list[int], vae["block_out_channels"])) - 1)
    levels = len(cast(list[int], unet["block_out_channels"]))
    sample_size = cast(int, unet.get("sample_size") or 64) * factor
    prediction = cast(Prediction, scheduler.get("prediction_type", "epsilon"))
    if prediction not in get_args(Prediction):
        values = {"file": str(path / "scheduler"), "reason": f"prediction_type = {prediction}"}
        findings.append(Finding("SF023", "error", "model.path", dict(values)))
    return ModelSurvey("folder", path, parts, prediction, sample_size, factor, levels)


def _has_component(folder: Path) -> bool:
    if folder.name == "tokenizer":
        return any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json"))
    if folder.name == "scheduler":
        return (folder / "scheduler_config.json").is_file()
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _read_part(folder: Path) -> PartSurvey:
    # `*.fp16.safetensors` beside the whole one is a variant that is not loaded.
    files = sorted(folder.glob("*.safetensors"), key=lambda file: (len(file.name), file.name))
    return PartSurvey(files[0], read_header(files[0]))


def _read_json(path: Path) -> dict[str, object]:
    try:
        return cast(dict[str, object], json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None


def _survey_single_file(loaded: Loaded, path: Path, findings: list[Finding]) -> ModelSurvey:
    facts = FAMILIES[loaded.config.model.family]
    if path.suffix != ".safetensors":
        findings.append(Finding("SF024", "error", "model.path", {"file": str(path)}))
        return _unknown_model("single_file", path)
    try:
        headers = read_header(path)
    except (HeaderError, OSError) as error:
        values = {"file": str(path), "reason": str(error)}
        findings.append(Finding("SF023", "error", "model.path", dict(values)))
        return _unknown_model("single_file", path)
    parts = {
        name: PartSurvey(path, _without_prefix(headers, part.single_file_prefix))
        for name, part in facts.parts.items()
    }
    empty = [name for name, part in parts.items() if not part.headers]
    if empty:
        values = {"file": str(path), "missing": ", ".join(empty)}
        findings.append(Finding("SF025", "error", "model.path", dict(values)))
        return _unknown_model("single_file", path)
    # An original checkpoint does not say what it predicts or how large its pictures were; the
    # configs beside it do, and without them it is Stable Diffusion 1.5.
    size, factor, levels, prediction = 512, 8, 4, "epsilon"
    if loaded.config.model.config != "auto":
        folder = resolve_path(loaded, loaded.config.model.config)
        described = _survey_folder(loaded.config, folder, findings)
        size, factor = described.sample_size, described.vae_factor
        levels, prediction = described.unet_levels, described.prediction
    return ModelSurvey("single_file", path, parts, prediction, size, factor, levels)


def _without_prefix(headers: dict[str, TensorHeader], prefix: str) -> dict[str, TensorHeader]:
    return {
        name.removeprefix(prefix): header
        for name, header in headers.items()
        if name.startswith(prefix)
    }


def _device(config: RunConfig) -> Device:
    """The device that `auto` means, told without torch by what the system shows."""
    for known in ("cpu", "cuda", "mps"):
        if config.train.device.partition(":")[0] == known:
            return known
    if shutil.which("nvidia-smi") or Path("/dev/nvidiactl").exists():
        return "cuda"
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return "mps"
    return "cpu"


def _free_bytes(run_folder: Path, findings: list[Finding]) -> int:
    existing = run_folder
    while not existing.exists():
        existing = existing.parent
    values = {"folder": str(run_folder)}
    if not existing.is_dir():
        findings.append(Finding("SF040", "error", "folder", {**values, "blocking": str(existing)}))
        return 0
    try:
        # Asking for permission bits is not enough: read-only mounts and root tell otherwise.
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        values |= {"blocking": str(existing), "reason": error.strerror or ""}
        findings.append(Finding("SF041", "error", "folder", dict(values)))
    return shutil.disk_usage(existing).free
