"""What is there: the model's files and weights, the pictures, the device, the disk. No torch."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from surefoot.builtin import BUILTIN_MODEL, BUILTIN_TRAIN, BUILTIN_VALIDATION
from surefoot.config.data import FolderConfig
from surefoot.config.load import Loaded
from surefoot.config.run import RunConfig
from surefoot.data.scan import ProblemKind, Scan, scan_folder
from surefoot.families.facts import FAMILIES, FamilyFacts, Prediction
from surefoot.finding import Finding, Level
from surefoot.formats.headers import TensorHeader, read_header, sampled_rms
from surefoot.formats.original import loaded_names
from surefoot.formats.settings import Fault, Settings, read_or_note
from surefoot.optim.arguments import optimizer_findings

ModelSource = Literal["folder", "single_file"]
Device = Literal["cpu", "cuda", "mps"]
_WITHOUT_WEIGHTS = ("tokenizer", "scheduler")


@dataclass(frozen=True)
class PartSurvey:
    """The weights of one part.

    Attributes:
        file: The file that holds them.
        headers: Name of each tensor, without the prefix of a single file, to its place in it.
    """

    file: Path
    headers: dict[str, TensorHeader]

    def rms(self, name: str) -> float:
        """Root mean square of one tensor, sampled."""
        return sampled_rms(self.file, self.headers[name])


@dataclass(frozen=True)
class ModelSurvey:
    """The model as found; figures are 0 where a problem kept them from being read.

    `zero_snr`: its last noise level has no signal left in it.
    """

    source: ModelSource
    path: Path
    parts: dict[str, PartSurvey]
    prediction: Prediction
    sample_size: int
    vae_factor: int
    unet_levels: int
    zero_snr: bool = False


@dataclass(frozen=True)
class Survey:
    """Everything found, and what was wrong with it.

    Attributes:
        free_bytes: Room for this run: what is free and what its own checkpoints take already; -1
            where a problem kept it from being asked.
    """

    model: ModelSurvey
    data: tuple[Scan, ...]
    validation: Scan
    device: Device
    free_bytes: int
    run_folder: Path
    findings: tuple[Finding, ...]

    def cached_bytes(self) -> int:
        """Size of the latent cache, in which the run may find its pictures."""
        return _size_of(cache_folder_of(self.run_folder))


def survey(loaded: Loaded) -> Survey:
    """Looks at everything that the run names; problems become findings, all at once."""
    config = loaded.config
    findings = optimizer_findings(config.optimizer)
    model = survey_model(loaded, findings)
    data = tuple(
        _survey_pictures(loaded, folder, index, findings)
        for index, folder in enumerate(config.data.folders)
    )
    run_folder = resolve_path(loaded, config.folder) / config.name
    return Survey(
        model=model,
        data=data,
        validation=_survey_validation(loaded, findings),
        device=_device(config),
        free_bytes=_free_bytes(run_folder, findings),
        run_folder=run_folder,
        findings=tuple(findings),
    )


def resolve_path(loaded: Loaded, path: str) -> Path:
    """A path of a run.toml, which is relative to the file's own folder."""
    # Not pathlib's, which raise on the home of nobody and on links that go round in circles.
    return Path(os.path.realpath(loaded.folder / os.path.expanduser(path)))  # noqa: PTH111


def cache_folder_of(run_folder: Path) -> Path:
    """Where latents are cached: beside the runs, which share them."""
    return run_folder.parent / ".cache" / "latents"


def _survey_pictures(
    loaded: Loaded, folder: FolderConfig, index: int, findings: list[Finding]
) -> Scan:
    path = BUILTIN_TRAIN if folder.path == "builtin" else resolve_path(loaded, folder.path)
    scan = _scanned(loaded, path)
    findings.extend(_scan_findings(scan, f"data.folders.{index}.path"))
    return scan


def _scanned(loaded: Loaded, path: Path) -> Scan:
    captions = loaded.config.captions
    return scan_folder(
        path, need_captions=captions.missing == "error", several=captions.lines == "several"
    )


def _survey_validation(loaded: Loaded, findings: list[Finding]) -> Scan:
    folder = loaded.config.validation.folder
    if folder == "off":
        return Scan(examples=(), problems=())
    path = BUILTIN_VALIDATION if folder == "builtin" else resolve_path(loaded, folder)
    scan = _scanned(loaded, path)
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


def survey_model(loaded: Loaded, findings: list[Finding]) -> ModelSurvey:
    """The model of a run; what is wrong with it is added to the findings."""
    config = loaded.config.model
    path = _find_model(loaded, config.path, "model.path", findings)
    if not _exists(path):
        return _unknown_model("folder", path)
    if path.is_file():
        return _survey_single_file(loaded, path, findings)
    return _survey_folder(FAMILIES[config.family], path, "model.path", findings)


def _find_model(loaded: Loaded, given: str, key: str, findings: list[Finding]) -> Path:
    """Where a path, a hub id or `builtin` is on this machine; a finding if nowhere."""
    path = resolve_path(loaded, given)
    found = locate_model(given, path)
    if found is None:
        code = "SF021" if _looks_like_hub_id(given) else "SF020"
        findings.append(Finding(code, "error", key, {"given": given}))
    return found or path


def locate_model(given: str, path: Path) -> Path | None:
    """Where a model is on this machine; None if nowhere.

    Args:
        given: `builtin`, a path or a hub id.
        path: What it means as a path.
    """
    if given == "builtin":
        return BUILTIN_MODEL
    if _exists(path):
        return path
    return _cached(given) if _looks_like_hub_id(given) else None


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except OSError:  # also a name that is too long, or a folder that may not be entered
        return False
    return True


def _unknown_model(source: ModelSource, path: Path) -> ModelSurvey:
    return ModelSurvey(source, path, {}, "epsilon", 0, 0, 0)


def _looks_like_hub_id(path: str) -> bool:
    return path.count("/") == 1 and not path.startswith((".", "/", "~")) and "\\" not in path


def _cached(hub_id: str) -> Path | None:
    """The folder of a model that was downloaded before; nothing is downloaded here."""
    # Imported late: a third of a second that only hub ids pay.
    from huggingface_hub import snapshot_download  # pyright: ignore[reportUnknownVariableType]
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = Path(snapshot_download(hub_id, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError):
        return None
    return found if _exists(found) else None


def _survey_folder(
    facts: FamilyFacts, path: Path, key: str, findings: list[Finding]
) -> ModelSurvey:
    missing = [name for name in facts.components if not _has_component(path / name)]
    if not (path / "model_index.json").is_file():
        missing.insert(0, "model_index.json")
    if missing:
        values = {"folder": str(path), "missing": ", ".join(missing)}
        findings.append(Finding("SF022", "error", key, dict(values)))
        return _unknown_model("folder", path)
    faults: list[Fault] = []
    weights = {
        name: PartSurvey(file, read_or_note(file, read_header, {}, faults))
        for name in facts.components
        if name not in _WITHOUT_WEIGHTS
        for file in [_weights_file(path / name)]
    }
    described = _describe(path, facts, faults)
    for file, reason in faults:
        values = {"file": str(file), "reason": reason}
        findings.append(Finding("SF023", "error", key, dict(values)))
    if faults:
        return _unknown_model("folder", path)
    parts = {name: _as_loaded(name, weights[name]) for name in facts.parts}
    return ModelSurvey("folder", path, parts, *described)


def _describe(
    path: Path, facts: FamilyFacts, faults: list[Fault]
) -> tuple[Prediction, int, int, int, bool]:
    """From the configs: the last five fields of `ModelSurvey`."""
    index = Settings(path / "model_index.json", faults)
    index.one_of("_class_name", facts.pipelines, "")
    Settings(path / "text_encoder" / "config.json", faults)
    scheduler = Settings(path / "scheduler" / "scheduler_config.json", faults)
    prediction = scheduler.one_of("prediction_type", get_args(Prediction), "epsilon")
    unet = Settings(path / "unet" / "config.json", faults)
    vae = Settings(path / "vae" / "config.json", faults)
    factor = 2 ** (vae.length("block_out_channels") - 1)
    levels = unet.length("block_out_channels")
    size = unet.size("sample_size", 64) * factor
    zero_snr = scheduler.flag("rescale_betas_zero_snr")
    return cast(Prediction, prediction), size, factor, levels, zero_snr


def _has_component(folder: Path) -> bool:
    if folder.name == "tokenizer":
        return any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json"))
    if folder.name == "scheduler":
        return (folder / "scheduler_config.json").is_file()
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _weights_file(folder: Path) -> Path:
    # `*.fp16.safetensors` beside the whole one is a variant that is not loaded.
    return min(folder.glob("*.safetensors"), key=lambda file: (len(file.name), file.name))


def _survey_single_file(loaded: Loaded, path: Path, findings: list[Finding]) -> ModelSurvey:
    facts = FAMILIES[loaded.config.model.family]
    if path.suffix != ".safetensors":
        findings.append(Finding("SF024", "error", "model.path", {"file": str(path)}))
        return _unknown_model("single_file", path)
    faults: list[Fault] = []
    headers = read_or_note(path, read_header, {}, faults)
    if faults:
        values = {"file": str(path), "reason": faults[0][1]}
        findings.append(Finding("SF023", "error", "model.path", dict(values)))
        return _unknown_model("single_file", path)
    parts = {
        name: _as_loaded(name, PartSurvey(path, _without_prefix(headers, part.single_file_prefix)))
        for name, part in facts.parts.items()
    }
    empty = [name for name, part in parts.items() if not part.headers]
    if empty:
        values = {"file": str(path), "missing": ", ".join(empty)}
        findings.append(Finding("SF025", "error", "model.path", dict(values)))
        return _unknown_model("single_file", path)
    # An original checkpoint does not say what it predicts or how large its pictures were; the
    # configs beside it do, and without them it is Stable Diffusion 1.5.
    size, factor, levels, prediction, zero_snr = 512, 8, 4, "epsilon", False
    if loaded.config.model.config != "auto":
        folder = _find_model(loaded, loaded.config.model.config, "model.config", findings)
        if _exists(folder):
            described = _survey_folder(facts, folder, "model.config", findings)
            size, factor = described.sample_size, described.vae_factor
            levels, prediction = described.unet_levels, described.prediction
            zero_snr = described.zero_snr
    return ModelSurvey("single_file", path, parts, prediction, size, factor, levels, zero_snr)


def _without_prefix(headers: dict[str, TensorHeader], prefix: str) -> dict[str, TensorHeader]:
    return {
        name.removeprefix(prefix): header
        for name, header in headers.items()
        if name.startswith(prefix)
    }


def _as_loaded(part: str, found: PartSurvey) -> PartSurvey:
    """With the names of the loaded model, in their order, whichever file they come from."""
    names = sorted((new, old) for old, new in loaded_names(part, found.headers).items())
    return PartSurvey(found.file, {new: found.headers[old] for new, old in names})


def _device(config: RunConfig) -> Device:
    """The device that `auto` means, told without torch by what the system shows."""
    for known in ("cpu", "cuda", "mps"):
        if config.train.device.partition(":")[0] == known:
            return known
    card = shutil.which("nvidia-smi") is not None or Path("/dev/nvidiactl").exists()
    if card and _torch_speaks_cuda():
        return "cuda"
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return "mps"
    return "cpu"


def _torch_speaks_cuda() -> bool:
    """Whether the torch that is installed was built for CUDA, read from its version file."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return False
    version = Path(found.origin).with_name("version.py")
    text = version.read_text(encoding="utf-8") if version.is_file() else ""
    return re.search(r"^cuda\b[^=]*= *['\"]", text, re.MULTILINE) is not None


def _free_bytes(run_folder: Path, findings: list[Finding]) -> int:
    existing = run_folder
    values = {"folder": str(run_folder)}
    try:
        while not _is_there(existing):
            existing = existing.parent
        if not existing.is_dir():
            values["blocking"] = str(existing)
            findings.append(Finding("SF040", "error", "folder", dict(values)))
            return -1
        # Asking for permission bits is not enough: read-only mounts and root tell otherwise.
        tempfile.TemporaryFile(dir=existing).close()
        return shutil.disk_usage(existing).free + _size_of(run_folder / "checkpoints")
    except OSError as error:
        values |= {"blocking": str(existing), "reason": error.strerror or type(error).__name__}
        findings.append(Finding("SF041", "error", "folder", dict(values)))
        return -1


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _size_of(folder: Path) -> int:
    """Bytes of all files below a folder; 0 if there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
