"""Time and memory of a forward and backward pass through LoRA and DoRA, against PEFT's.

Every variant takes its turn in one process, on the same numbers; a figure is the median over rounds
of the ratio to PEFT's LoRA in the same round. Prints Markdown tables; add `--write` to put them
into docs/adapter-speed.md.

    python -m benchmarks.dora
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model
from rich.console import Console
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.adafactor import machine, write_between_markers
from surefoot.builtin import BUILTIN_MODEL
from surefoot.families.facts import FAMILIES
from surefoot.tuning import dora, lora
from surefoot.tuning.replacement import attach_adapters
from surefoot.tuning.targets import select_targets

PAGE = Path(__file__).parent.parent / "docs" / "adapter-speed.md"
LINEARS = {
    "640 x 640, 4,096 tokens": (640, 640, 4096),
    "1280 x 1280, 1,024 tokens": (1280, 1280, 1024),
    "1280 x 1280, 256 tokens": (1280, 1280, 256),
    "3072 x 3072, 512 tokens": (3072, 3072, 512),
    "3072 to 12288, 512 tokens": (3072, 12288, 512),
}
REFERENCE = "PEFT LoRA"
ACCUMULATION = 4
"""Backward passes that share a step's norms, in the column of that name."""


@dataclass(frozen=True)
class Variant:
    """A network with adapters, and whether its trained tensors change before a pass."""

    network: nn.Module
    fresh: bool

    def trained(self) -> list[nn.Parameter]:
        """The adapters' tensors."""
        return [item for item in self.network.parameters() if item.requires_grad]

    def run(self, run: Callable[[nn.Module], Tensor], gradient: Tensor) -> None:
        """One forward and backward pass, after a step of an optimizer or between two."""
        for parameter in self.trained():
            parameter.grad = None
        if self.fresh:
            torch.autograd.graph.increment_version(self.trained())
        output = run(self.network)
        output.backward(gradient.to(output.dtype))


def variants(base: nn.Module, rank: int) -> dict[str, Variant]:
    """The same adapters by PEFT and by surefoot; `lora_up` is not zero in any."""
    shapes = {
        path: tuple(module.weight.shape)
        for path, module in base.named_modules()
        if isinstance(module, nn.Linear)
    }
    patterns = FAMILIES["sd15"].parts["unet"].presets["attention+feed_forward"]
    targets = select_targets(shapes, patterns if len(shapes) > 1 else ["*"])

    def ours(kind: str) -> nn.Module:
        attach = partial(attach_adapters, lora.LoraLayer if kind == "lora" else dora.DoraLayer)
        network = copy.deepcopy(base)
        generator = torch.Generator().manual_seed(0)
        attach({"": network}, {"": targets}, rank=rank, alpha=float(rank), generator=generator)
        return filled(network)

    def peft(use_dora: bool) -> nn.Module:
        config = LoraConfig(
            r=rank, lora_alpha=rank, target_modules=list(targets), use_dora=use_dora
        )
        return filled(inject_adapter_in_model(config, copy.deepcopy(base)))

    our_dora = ours("dora")
    return {
        REFERENCE: Variant(peft(use_dora=False), fresh=True),
        "LoRA": Variant(ours("lora"), fresh=True),
        "DoRA": Variant(our_dora, fresh=True),
        "DoRA, norms at hand": Variant(our_dora, fresh=False),
        "PEFT DoRA": Variant(peft(use_dora=True), fresh=True),
    }


def filled(network: nn.Module) -> nn.Module:
    """Gives `lora_up` numbers, as after some training."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in network.named_parameters():
        if "lora_up" in name or "lora_B" in name:
            nn.init.normal_(parameter, std=0.01, generator=generator)
    return network


def ratios(
    found: Mapping[str, Variant], run: Callable[[nn.Module], Tensor], gradient: Tensor, rounds: int
) -> tuple[float, dict[str, float]]:
    """Seconds of the reference, and the median ratio of each variant to it."""
    times: dict[str, list[float]] = {name: [] for name in found}
    for repetition in range(rounds + 1):
        for name, variant in found.items():
            started = time.perf_counter()
            variant.run(run, gradient)
            if repetition:  # the first is to warm up
                times[name].append(time.perf_counter() - started)
    reference = times[REFERENCE]
    return statistics.median(reference), {
        name: statistics.median(a / b for a, b in zip(values, reference, strict=True))
        for name, values in times.items()
    }


def peak(variant: Variant, run: Callable[[nn.Module], Tensor], gradient: Tensor) -> int:
    """The most bytes that a pass holds beyond what was there before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        variant.run(run, gradient)
    assert profiled.profiler is not None
    results = profiled.profiler.kineto_results
    assert results is not None
    held = most = 0
    for event in results.events():
        if event.name() == "[memory]":
            size: Any = event  # torch's annotations lack `nbytes`
            held += size.nbytes()
            most = max(most, held)
    return most


def linear_tables(rounds: int, amp: bool) -> str:
    """Time and peak of one layer."""
    times = [header("layer, rank", amp, (*NAMES, TOGETHER))]
    peaks = [header("layer, rank, peak bytes", amp)]
    for name, (width, out, tokens) in LINEARS.items():
        for rank in (16, 128):
            torch.manual_seed(0)
            base = nn.Sequential(nn.Linear(width, out))
            x, gradient = torch.randn(tokens, width, requires_grad=True), torch.randn(tokens, out)

            def run(network: nn.Module, x: Tensor = x) -> Tensor:
                x.grad = None
                with torch.autocast("cpu", torch.bfloat16, enabled=amp):
                    return network(x)

            found = variants(base, rank)
            seconds, measured = ratios(found, run, gradient, rounds)
            times.append(times_row(f"{name}, r{rank}", seconds, measured))
            if not amp:
                held = {key: peak(variant, run, gradient) for key, variant in found.items()}
                reference = held[REFERENCE]
                shares = {key: value / reference for key, value in held.items()}
                peaks.append(row(f"{name}, r{rank}", f"{reference / 1e6:.1f} MB", shares))
    return "\n".join([*times, "", *peaks, ""] if not amp else [*times, ""])


def networks() -> dict[str, tuple[UNet2DConditionModel, tuple[Tensor, Tensor, Tensor]]]:
    """The built-in model's UNet, and one of SDXL's widths with fewer blocks; with their inputs."""
    torch.manual_seed(0)
    small = UNet2DConditionModel.from_pretrained(BUILTIN_MODEL, subfolder="unet").float()
    width = int(small.config["cross_attention_dim"])
    inputs = torch.randn(16, 4, 16, 16), torch.tensor(500), torch.randn(16, 32, width)
    # diffusers annotates its constructor too narrowly.
    settings: dict[str, Any] = {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "transformer_layers_per_block": (1, 1, 2),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
    }
    sdxl = UNet2DConditionModel(**settings)
    shape = torch.randn(1, 4, 32, 32), torch.tensor(500), torch.randn(1, 77, 2048)
    return {
        "built-in UNet, 16 pictures": (small, inputs),
        "UNet of SDXL's widths, 32 x 32 latents": (sdxl, shape),
    }


def network_table(rounds: int) -> str:
    """Time of a whole UNet."""
    lines = [header("network, rank", False, (*NAMES, TOGETHER))]
    for name, (base, inputs) in networks().items():
        gradient = torch.randn_like(inputs[0])

        def run(network: nn.Module, inputs: tuple[Tensor, Tensor, Tensor] = inputs) -> Tensor:
            return network(*inputs, return_dict=False)[0]

        seconds, measured = ratios(variants(base, 16), run, gradient, rounds)
        lines.append(times_row(f"{name}, r16", seconds, measured))
    return "\n".join([*lines, ""])


NAMES = (REFERENCE, "LoRA", "DoRA", "DoRA, norms at hand", "PEFT DoRA")
TOGETHER = f"DoRA, {ACCUMULATION} passes a step"


def header(what: str, amp: bool, names: Sequence[str] = NAMES) -> str:
    """The first two lines of a table."""
    kind = "bf16 autocast" if amp else "fp32"
    return f"| {what} ({kind}) | {' | '.join(names)} |\n|---|{'---|' * len(names)}"


def row(name: str, reference: str, measured: Mapping[str, float]) -> str:
    """One line; the reference's own figure stands in its column."""
    cells = [f"{value:.2f}" for key, value in measured.items() if key != REFERENCE]
    return f"| {name} | {reference} | {' | '.join(cells)} |"


def times_row(name: str, seconds: float, measured: Mapping[str, float]) -> str:
    """One line of times, with those of a step of several passes."""
    fresh, kept = measured["DoRA"], measured["DoRA, norms at hand"]
    together = (fresh + (ACCUMULATION - 1) * kept) / ACCUMULATION
    return row(name, f"{seconds * 1e3:.1f} ms", {**measured, TOGETHER: together})


def main() -> None:
    """Measures, prints and, if asked, writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    arguments = parser.parse_args()
    console = Console(soft_wrap=True, highlight=False)
    tables = [f"{machine()}; medians of {arguments.rounds} rounds\n"]
    console.print(tables[0], markup=False)
    for table in (
        lambda: linear_tables(arguments.rounds, amp=False),
        lambda: network_table(arguments.rounds),
        lambda: linear_tables(arguments.rounds, amp=True),
    ):
        tables.append(table())
        console.print(tables[-1], markup=False)
    if arguments.write:
        write_between_markers(PAGE, "\n".join(tables))


if __name__ == "__main__":
    main()
