"""The torch side of the run's random streams."""

from __future__ import annotations

import torch

from surefoot.data.batches import stream_seed


def torch_generator(seed: int, *stream: int | str) -> torch.Generator:
    """Give the CPU generator of a stream, at its beginning: a pure function of its arguments.

    It is seeded by the rule of `step_generator`. torch's CPU generator takes no more than 64 bits
    (and uses 32 of them), so two of some 65,000 streams may well be equal; for the noise of
    different steps, which meets different pictures, that does no harm.
    """
    return torch.Generator(device="cpu").manual_seed(stream_seed(seed, *stream) % 2**64)
