"""How long Adafactor's step takes, what it allocates and dispatches, beside its peers.

All optimizers step the same tensors in turn in one process, several rounds; the median counts.
`p.add_(g)` over the same numbers reads and writes what any optimizer has to. Memory is the peak of
a process of its own for each optimizer. Prints Markdown tables; add `--write` to put them into
docs/adafactor-speed.md.

    python -m benchmarks.adafactor
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from rich.console import Console
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from surefoot.optim import stepping
from surefoot.optim.adafactor import Adafactor

PAGE = Path(__file__).parent.parent / "docs" / "adafactor-speed.md"
SDXL_BLOCKS = ((640, 10), (1280, 60))
"""Width and number of SDXL's transformer blocks (10 linear layers each)."""
CASES = ("sdxl-lora-r16", "sdxl-lora-r128", "sd15-full")
VIEWS = re.compile(
    "alias|as_strided|detach|expand|lift_fresh|permute|select|slice|split|squeeze|t|transpose|unbind"
    "|unsqueeze|view|_record_function_.*"
)


def sdxl_lora(rank: int) -> list[tuple[int, ...]]:
    """Shapes of a LoRA on the 700 linear layers in SDXL's transformer blocks."""
    shapes: list[tuple[int, ...]] = []
    for width, blocks in SDXL_BLOCKS:
        # Query, key, value, out of self-attention and of cross-attention; feed-forward.
        layers = [(width, width)] * 6 + [(width, 2048)] * 2
        layers += [(8 * width, width), (width, 4 * width)]
        for rows, columns in layers * blocks:
            shapes += [(rank, columns), (rows, rank)]
    return shapes


def sd15_full() -> list[tuple[int, ...]]:
    """Shapes of the UNet of Stable Diffusion 1.5."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
    return [tuple(parameter.shape) for parameter in unet.parameters()]


def shapes_of(case: str) -> list[tuple[int, ...]]:
    """The shapes of a case by its name."""
    return sd15_full() if case == "sd15-full" else sdxl_lora(int(case.rpartition("r")[2]))


def trained(shapes: Iterable[tuple[int, ...]]) -> list[nn.Parameter]:
    """Weights with gradients."""
    torch.manual_seed(0)
    found: list[nn.Parameter] = []
    for shape in shapes:
        parameter = nn.Parameter(torch.empty(shape).normal_(std=0.02))
        parameter.grad = torch.empty(shape).normal_(std=1e-3)
        found.append(parameter)
    return found


def surefoot(parameters: list[nn.Parameter]) -> Optimizer:
    """Ours, with compiled loops."""
    return Adafactor(parameters, 1e-5, scale_parameter=True)


def transformers(parameters: list[nn.Parameter]) -> Optimizer:
    """The loop that OneTrainer, sd-scripts and ai-toolkit have copies of."""
    from transformers import Adafactor as Peer

    return Peer(parameters, lr=1e-5, scale_parameter=True, relative_step=False)


def torch_foreach(parameters: list[nn.Parameter]) -> Optimizer:
    """The one that comes with torch."""
    return torch.optim.Adafactor(parameters, lr=1e-5, foreach=True)


def pytorch_optimizer(parameters: list[nn.Parameter]) -> Optimizer:
    """What diffusion-pipe offers."""
    from pytorch_optimizer import AdaFactor as Peer

    return Peer(parameters, lr=1e-5)


OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], Optimizer]] = {
    "surefoot": surefoot,
    "surefoot without numba": surefoot,
    "transformers": transformers,
    "torch foreach": torch_foreach,
    "pytorch-optimizer": pytorch_optimizer,
}


def choose_arithmetic(name: str) -> None:
    """Lets surefoot's step use its compiled loops, or not."""
    stepping.use_compiled(name != "surefoot without numba")


class Count(TorchDispatchMode):
    """Counts operations that are not views: on a GPU, each is at least one launch."""

    def __init__(self) -> None:
        """Starts at zero."""
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        """Counts one."""
        name = func.__name__.partition(".")[0]
        self.operations += not VIEWS.fullmatch(name)
        return func(*args, **(kwargs or {}))


def seconds(action: Callable[[], object]) -> float:
    """Of one call."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def timed(case: str, names: list[str], rounds: int) -> dict[str, list[float]]:
    """Seconds of each step, by optimizer; `add` is `p.add_(g)`."""
    parameters = trained(shapes_of(case))
    weights: list[Tensor] = [*parameters]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]

    def add() -> None:
        with torch.no_grad():
            torch._foreach_add_(weights, gradients, alpha=-1e-9)  # pyright: ignore[reportPrivateImportUsage]

    optimizers = {name: OPTIMIZERS[name](parameters) for name in names}
    found: dict[str, list[float]] = {name: [] for name in ("add", *names)}
    for round_ in range(rounds + 1):  # the first makes state and compiles
        found["add"].append(seconds(add))
        for name, optimizer in optimizers.items():
            choose_arithmetic(name)
            found[name].append(seconds(optimizer.step))
        print(f"  {case} round {round_}", file=sys.stderr, flush=True)
    return {name: values[1:] for name, values in found.items()}


def peak(case: str, name: str) -> dict[str, int]:
    """Bytes of state, bytes beyond it at the peak of a step, and operations; in this process."""
    parameters = trained(shapes_of(case))
    choose_arithmetic(name)
    small = [nn.Parameter(torch.ones(2, 2))]
    small[0].grad = torch.ones(2, 2)
    OPTIMIZERS[name](small).step()  # imports and compiles
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    optimizer = OPTIMIZERS[name](parameters)
    optimizer.step()
    optimizer.step()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tensors = [
        value
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    ]
    state = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    with Count() as count:
        optimizer.step()
    return {
        "state": state,
        "beyond": max(0, (after - before) * 1024 - state),
        "operations": count.operations,
    }


def peaks(case: str, names: list[str]) -> dict[str, dict[str, int]]:
    """`peak` of each optimizer that gets through, each in a new process."""
    found: dict[str, dict[str, int]] = {}
    for name in names:
        command = [sys.executable, __file__, "--peak", case, name]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE)
        if done.returncode == 0:
            found[name] = json.loads(done.stdout)
        else:  # killed, most likely by a system that has no more memory
            print(f"{name} did not finish {case}: exit {done.returncode}", file=sys.stderr)
    return found


def table(case: str, names: list[str], rounds: int) -> str:
    """One case as a Markdown table."""
    memory = peaks(case, names)
    measured = timed(case, [name for name in names if name in memory], rounds)
    times = {name: statistics.median(found) for name, found in measured.items()}
    numbers = [torch.Size(shape).numel() for shape in shapes_of(case)]
    lines = [
        f"### {case}: {len(numbers):,} tensors, {sum(numbers) / 1e6:,.1f} M numbers\n",
        "| | ms a step | times ours | times `p.add_(g)` | operations | state, MB | beyond, MB |",
        "|---|---|---|---|---|---|---|",
        f"| `p.add_(g)` | {times['add'] * 1e3:,.1f} | {times['add'] / times['surefoot']:.2f} | 1 "
        "| | | |",
    ]
    for name in names:
        if name not in memory:
            lines.append(f"| {name} | more memory than there is | | | | | |")
            continue
        used = memory[name]
        lines.append(
            f"| {name} | {times[name] * 1e3:,.1f} | {times[name] / times['surefoot']:.2f} "
            f"| {times[name] / times['add']:.1f} | {used['operations']:,} "
            f"| {used['state'] / 1e6:,.1f} | {used['beyond'] / 1e6:,.0f} |"
        )
    return "\n".join(lines) + "\n"


def machine() -> str:
    """What the figures were measured on."""
    name = platform.processor() or platform.machine()
    cpus = Path("/proc/cpuinfo")
    if cpus.exists():
        found = re.search(r"model name\s*: (.*)", cpus.read_text(encoding="utf-8"))
        name = found[1] if found else name
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def write_between_markers(page: Path, text: str) -> None:
    """Replaces what a page has between its two markers."""
    start, end = "<!-- measured -->\n", "<!-- end -->"
    head, _, rest = page.read_text(encoding="utf-8").partition(start)
    page.write_text(head + start + text + end + rest.partition(end)[2], encoding="utf-8")


def main() -> None:
    """Measures, prints and, if asked, writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    parser.add_argument("--peak", nargs=2, metavar=("CASE", "OPTIMIZER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print(json.dumps(peak(*arguments.peak)))
        return
    tables = [table(case, arguments.optimizers, arguments.rounds) for case in arguments.cases]
    text = f"{machine()}; median of {arguments.rounds} rounds\n\n" + "\n".join(tables)
    Console(soft_wrap=True, highlight=False).print(text, markup=False)
    if arguments.write:
        write_between_markers(PAGE, text)


if __name__ == "__main__":
    main()
