"""Verbs on finished adapters: inspect, convert, merge, extract, resize."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer
from rich.cells import cell_len
from rich.text import Text

from surefoot.columns import padded
from surefoot.config.adapter_format import AdapterFormat
from surefoot.finding import Finding, Refused
from surefoot.language import N_, _
from surefoot.terminal import (
    OK,
    UNUSABLE,
    exit_code,
    finding_json,
    print_findings,
    print_json,
    stderr,
    stdout,
)

if TYPE_CHECKING:
    # Torch takes a second to import, and help needs none of it.
    import torch

    from surefoot.adapters.cutting import KeptLayer
    from surefoot.adapters.inspection import Inspection
    from surefoot.adapters.merge import Weighted
    from surefoot.formats.adapter_file import AdapterFile

T = TypeVar("T")

Adapter = Annotated[Path, typer.Argument(metavar="FILE", help="An adapter as .safetensors.")]
Out = Annotated[Path, typer.Option("--out", help="Where the result goes.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Base = Annotated[
    str,
    typer.Option(
        "--base",
        help="The model that it was made for: a diffusers folder, a .safetensors checkpoint, the "
        "name of a downloaded model, or builtin.",
    ),
]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A diffusers folder, a .safetensors checkpoint, the name of a downloaded model, or "
        "builtin.",
    ),
]
DtypeName = Literal["keep", "fp32", "fp16", "bf16"]
Dtype = Annotated[DtypeName, typer.Option("--dtype", help="Dtype of the result's numbers.")]
To = Annotated[AdapterFormat, typer.Option("--to", help="Whose names and shapes the result has.")]
Rank = Annotated[int, typer.Option("--rank", help="The highest rank of a layer; 0 for no bound.")]
Energy = Annotated[
    float,
    typer.Option(
        "--energy", help="The share of each layer's update to keep, at the lowest rank that does."
    ),
]

_MOST_LINES = 15
RANK_OR_ENERGY = N_("at least one of `--rank` and `--energy`")
AT_LEAST_0 = N_("0 or more")
FINITE = N_("a number such as 0.5")
SHARE = N_("more than 0 and at most 1")


def inspect_file(
    file: Adapter,
    base: Base = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of text.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Also draw the bars of all layers as an .svg.")
    ] = None,
    all_layers: Annotated[
        bool, typer.Option("--layers", help="Show every layer, in the order of the file.")
    ] = False,
    force: Force = False,
) -> None:
    """Say what an adapter is, how far each of its layers goes, and whether it is healthy."""
    from surefoot.adapters.destination import destination_findings
    from surefoot.adapters.inspection import inspect_adapter
    from surefoot.adapters.model_weights import open_model
    from surefoot.adapters.plot import bar_plot
    from surefoot.formats.files import write_whole

    with _refusing(file, plot, as_json=as_json):
        problems = destination_findings(plot, [file], force=force) if plot else []
        adapter = _try(problems, lambda: _open_adapter(file))
        model = _try(problems, lambda: open_model(base)) if base else None
        if problems or adapter is None:
            raise Refused(problems)
        inspection = inspect_adapter(adapter, model)
        if plot is not None:
            write_whole(plot, bar_plot(file.name, inspection.layers))
    findings = list(inspection.findings)
    if as_json:
        found = [finding_json(finding) for finding in findings]
        print_json({"schema": 1, "adapter": inspection.as_json(), "findings": found})
        raise typer.Exit(exit_code(findings))
    _print_inspection(inspection, most=0 if all_layers else _MOST_LINES)
    print_findings(findings, file, "", stdout)
    if plot is not None:
        stdout.print(_("plot:      {path}").format(path=plot))
    raise typer.Exit(exit_code(findings))


def convert(
    file: Adapter, out: Out, to: To, base: Base = "", dtype: Dtype = "keep", force: Force = False
) -> None:
    """Write an adapter with the names and shapes that another program reads."""
    from surefoot.adapters.convert import convert as convert_adapter
    from surefoot.adapters.destination import destination_findings
    from surefoot.adapters.model_weights import open_model

    with _refusing(file, out):
        problems = destination_findings(out, [file], force=force)
        adapter = _try(problems, lambda: _open_adapter(file))
        model = _try(problems, lambda: open_model(base)) if base else None
        if problems or adapter is None:
            raise Refused(problems)
        converted = convert_adapter(adapter, model, out, to=to, dtype=_torch_dtype(dtype))
    for line in converted.changes:
        stdout.print(line)
    _done(out, converted.findings)


def merge(
    base: Model,
    adapters: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE[=WEIGHT]...",
            help="Adapters, each perhaps with how much of it is added; 1 if not.",
        ),
    ],
    out: Out,
    dtype: Dtype = "keep",
    force: Force = False,
) -> None:
    """Add adapters to a model; the result is laid out as the model is, a folder or one file.

    A LoRA adds WEIGHT times its update; a DoRA moves the weights by WEIGHT of the way to what it
    makes of them. Adapters are added in the order given.
    """
    from surefoot.adapters.destination import destination_findings
    from surefoot.adapters.merge import merge as merge_adapters
    from surefoot.adapters.model_weights import open_model

    with _refusing(Path(base), out):
        problems: list[Finding] = []
        model = _try(problems, lambda: open_model(base))
        weighted = [_try(problems, lambda given=given: _weighted(given)) for given in adapters]
        opened = [item for item in weighted if item is not None]
        sources = [item.adapter.path for item in opened] + ([model.path] if model else [])
        folder = model is not None and model.layout == "folder"
        problems += destination_findings(out, sources, force=force, folder=folder)
        if problems or model is None:
            raise Refused(problems)
        total = sum(len(file.headers) for file in model.files)
        with _progress(_("merging"), total) as tell:
            merged = merge_adapters(model, opened, out, dtype=_torch_dtype(dtype), tell=tell)
    stdout.print(_("layers changed: {count}").format(count=merged.layers))
    _done(out, merged.findings)


def extract(
    base: Model,
    tuned: Model,
    out: Out,
    rank: Rank = 0,
    energy: Energy = 1.0,
    targets: Annotated[
        str,
        typer.Option(
            "--targets",
            help="Layers: a preset of tuning.targets, or patterns of module names with commas "
            "between them.",
        ),
    ] = "all",
    to: To = "diffusers",
    force: Force = False,
) -> None:
    """Make a LoRA of the difference between two models, by singular values."""
    from surefoot.adapters.cutting import Cutting
    from surefoot.adapters.destination import destination_findings
    from surefoot.adapters.extract import targets_of
    from surefoot.adapters.model_weights import open_model
    from surefoot.adapters.output import write_extracted

    with _refusing(Path(tuned), out):
        problems = _cutting_findings(rank, energy)
        before = _try(problems, lambda: open_model(base))
        after = _try(problems, lambda: open_model(tuned))
        sources = [model.path for model in (before, after) if model is not None]
        problems += destination_findings(out, sources, force=force)
        if before is None or after is None:
            raise Refused(problems)
        patterns = [pattern.strip() for pattern in targets.split(",")]
        layers = _try(problems, lambda: targets_of(before, after, patterns))
        if problems or layers is None:
            raise Refused(problems)
        with _progress(_("comparing"), len(layers)) as tell:
            cutting = Cutting(rank, energy)
            done = write_extracted(before, after, layers, out, to=to, cutting=cutting, tell=tell)
    _print_kept(done.kept)
    _done(out, done.findings)


def resize(
    file: Adapter,
    out: Out,
    rank: Rank = 0,
    energy: Energy = 1.0,
    force: Force = False,
) -> None:
    """Lower the rank of an adapter, and say how much of each layer is kept."""
    from surefoot.adapters.cutting import Cutting
    from surefoot.adapters.destination import destination_findings
    from surefoot.adapters.output import write_resized
    from surefoot.adapters.resize import resize_findings

    with _refusing(file, out):
        problems = _cutting_findings(rank, energy)
        problems += destination_findings(out, [file], force=force)
        adapter = _try(problems, lambda: _open_adapter(file))
        if adapter is not None:
            problems += resize_findings(adapter)
        if problems or adapter is None:
            raise Refused(problems)
        done = write_resized(adapter, out, to=_same_format(adapter), cutting=Cutting(rank, energy))
    _print_kept(done.kept)
    _done(out, done.findings)


def _same_format(adapter: AdapterFile) -> AdapterFormat:
    """The format of a file, or what is written in the place of those that are read only."""
    match adapter.format:
        case "peft":
            return "diffusers"
        case "onetrainer-legacy":
            return "kohya"
        case written:
            return written


def _open_adapter(path: Path) -> AdapterFile:
    from surefoot.adapters.output import reasons_of
    from surefoot.formats.adapter_file import open_adapter
    from surefoot.formats.weights import WeightsError

    try:
        return open_adapter(path)
    except WeightsError as error:
        raise Refused(
            [
                Finding("SF070", "error", "", {"file": str(path), "reason": reason})
                for reason in reasons_of(error, path)
            ]
        ) from None


def _weighted(given: str) -> Weighted:
    """An adapter by `FILE` or `FILE=WEIGHT`; a path may have an equals sign of its own."""
    from surefoot.adapters.merge import Weighted

    name, sign, number = given.rpartition("=")
    try:
        weight = float(number) if sign else 1.0
    except ValueError:
        name, weight = given, 1.0
    if not math.isfinite(weight):
        values = {"option": f"{name}=", "given": number, "expected": FINITE}
        raise Refused([Finding("SF078", "error", "", dict(values))])
    return Weighted(_open_adapter(Path(name if sign else given)), weight)


def _cutting_findings(rank: int, energy: float) -> list[Finding]:
    values: list[tuple[str, str, str]] = []
    if rank < 0:
        values.append(("--rank", str(rank), AT_LEAST_0))
    if not 0 < energy <= 1:
        values.append(("--energy", f"{energy:g}", SHARE))
    if rank == 0 and energy == 1:
        values.append(("--rank", "0", RANK_OR_ENERGY))
    return [
        Finding("SF078", "error", "", {"option": option, "given": given, "expected": expected})
        for option, given, expected in values
    ]


def _try(problems: list[Finding], call: Callable[[], T]) -> T | None:
    """What a call returns; None, and its findings, if it refuses: so that all is said at once."""
    try:
        return call()
    except Refused as refused:
        problems += refused.findings
        return None


@contextmanager
def _refusing(file: Path, out: Path | None, *, as_json: bool = False) -> Generator[None]:
    """Says why a verb cannot do what was asked, and ends with exit code 2."""
    from surefoot.adapters.destination import unwritable

    try:
        yield
        return
    except Refused as refused:
        findings = refused.findings
    except OSError as error:
        findings = [unwritable(out or file, error)]
    if as_json:
        print_json({"schema": 1, "findings": [finding_json(finding) for finding in findings]})
    else:
        print_findings(findings, file, "", stderr)
    raise typer.Exit(UNUSABLE)


@contextmanager
def _progress(doing: str, total: int) -> Generator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal)
    with bar:
        task = bar.add_task(doing, total=total)
        yield lambda done: bar.advance(task, done)


def _torch_dtype(name: DtypeName) -> torch.dtype | None:
    from surefoot.adapters.casting import DTYPES

    return None if name == "keep" else DTYPES[name]


def _print_inspection(inspection: Inspection, *, most: int) -> None:
    from surefoot.adapters.table import VERDICT_LINES, layer_lines, summary

    pairs = [*summary(inspection), (_("verdict"), _(VERDICT_LINES[inspection.verdict]))]
    width = max(cell_len(name) for name, _text in pairs)
    for name, text in pairs:
        stdout.print(Text(padded(name, width + 2), style="bold").append(text, style="not bold"))
    stdout.print()
    for line in layer_lines(inspection.layers, most=most):
        stdout.print(Text(line))
    stdout.print()


def _print_kept(layers: Sequence[KeptLayer]) -> None:
    from surefoot.adapters.table import kept_lines

    for line in kept_lines(layers, most=_MOST_LINES):
        stdout.print(Text(line))


def _done(out: Path, findings: Sequence[Finding]) -> None:
    print_findings(findings, out, "", stderr)
    stdout.print(_("result:    {path}").format(path=out))
    raise typer.Exit(OK)
