"""Peak memory and time of a step of full fine-tuning, with the step inside backward and without.

The UNet of Stable Diffusion 1.5 with random weights takes real steps, each case in a process of its
own. Latents are small, so that weights, gradients and the optimizer's memory are what counts.
Prints a Markdown table; add `--write` to put it into docs/step-in-backward.md.

    python -m benchmarks.step_in_backward
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from rich.console import Console
from torch import Tensor

from benchmarks.adafactor import machine, write_between_markers
from surefoot.optim.adafactor import Adafactor
from surefoot.optim.in_backward import StepInBackward

PAGE = Path(__file__).parent.parent / "docs" / "step-in-backward.md"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SIDE = 8
"""Of the latents: pictures of 64 pixels."""


def network(dtype: torch.dtype) -> UNet2DConditionModel:
    """The UNet of Stable Diffusion 1.5, made in its dtype so that no wider copy ever was."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        torch.manual_seed(0)
        return UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
    finally:
        torch.set_default_dtype(before)


def loss_of(unet: UNet2DConditionModel) -> Tensor:
    """A picture's loss, in the network's dtype."""
    noisy = torch.randn(1, 4, SIDE, SIDE, dtype=unet.dtype)
    states = torch.randn(1, 77, 768, dtype=unet.dtype)
    answer = unet(noisy, torch.tensor([500]), states).sample
    return (answer.float() - torch.randn(answer.shape)).square().mean()


def resident() -> int:
    """Bytes of this process in memory now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize()


def measure(dtype: str, inside: bool, steps: int) -> dict[str, float]:
    """Bytes at the peak beyond those before the network was made, and seconds of a step."""
    small = torch.nn.Parameter(torch.ones(2, 2, dtype=DTYPES[dtype]))
    small.grad = torch.ones_like(small)
    Adafactor([small]).step()  # imports and compiles
    gc.collect()
    before = resident()
    unet = network(DTYPES[dtype]).train()
    optimizer = Adafactor(unet.parameters(), 1e-3)
    stepping = StepInBackward(optimizer) if inside else None
    times: list[float] = []
    for _ in range(steps):
        started = time.perf_counter()
        loss_of(unet).backward()
        if stepping is None:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        times.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    # The first step makes the state.
    return {
        "peak": peak - before,
        "weights": sum(item.numel() * item.element_size() for item in unet.parameters()),
        "seconds": statistics.median(times[1:]),
    }


def in_new_process(dtype: str, inside: bool, steps: int) -> dict[str, float]:
    """`measure` in a process that has held nothing before."""
    words = ["--measure", dtype, "inside" if inside else "after", "--steps", str(steps)]
    command = [sys.executable, "-m", "benchmarks.step_in_backward", *words]
    print(" ".join(words), file=sys.stderr, flush=True)
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def table(steps: int) -> str:
    """All cases as a Markdown table."""
    lines = [
        "| weights | step | weights, GB | peak, GB | peak / weights | s a step |",
        "|---|---|---|---|---|---|",
    ]
    for dtype in DTYPES:
        for inside in (False, True):
            found = in_new_process(dtype, inside, steps)
            lines.append(
                f"| {dtype} | {'inside backward' if inside else 'after backward'} "
                f"| {found['weights'] / 1e9:.2f} | {found['peak'] / 1e9:.2f} "
                f"| {found['peak'] / found['weights']:.2f} | {found['seconds']:.1f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, prints and, if asked, writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    parser.add_argument("--measure", nargs=2, metavar=("DTYPE", "WHEN"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        dtype, when = arguments.measure
        print(json.dumps(measure(dtype, when == "inside", arguments.steps)))
        return
    text = f"{machine()}; {arguments.steps} steps\n\n" + table(arguments.steps)
    Console(soft_wrap=True, highlight=False).print(text, markup=False)
    if arguments.write:
        write_between_markers(PAGE, text)


if __name__ == "__main__":
    main()
