"""Several processes that talk to each other, for tests."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

Work = Callable[[], object]


def run_together(work: Work, processes: int, folder: Path) -> list[Any]:
    """What `work`, a function of a module, returns in each of the processes, by their rank."""
    spawn(_begin, (work, processes, folder), nprocs=processes)
    return [pickle.loads((folder / str(rank)).read_bytes()) for rank in range(processes)]


def _begin(rank: int, work: Work, processes: int, folder: Path) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    store = f"file://{folder / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=processes)
    try:
        (folder / str(rank)).write_bytes(pickle.dumps(work()))
    finally:
        dist.destroy_process_group()
