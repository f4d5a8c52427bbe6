"""Writes optax_values.json: where optax's Adafactor ends for the options that it shares with ours.

optax brings JAX, 600 MB, which is too much for a development environment; so its results are kept.

    python -m venv /tmp/optax && /tmp/optax/bin/pip install optax
    /tmp/optax/bin/python tests/reference/make_optax_values.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_name("optax_values.json")
STEPS = 50
LR = 0.02
SHAPES = {"vector": (7,), "tall": (12, 5), "wide": (5, 12), "thin": (40, 16)}
# By optax's names; factored whatever the size, since it leaves sides below 128 whole else.
OPTIONS: dict[str, dict[str, Any]] = {
    "scaled by itself": {},
    "not scaled": {"multiply_by_parameter_scale": False},
    "clipped hard": {"clipping_threshold": 0.3},
    "fast decay": {"decay_rate": 0.4},
    "large eps1": {"eps": 0.5},
    # It averages lr * update, which is ours times lr only where nothing else scales.
    "momentum": {"momentum": 0.9, "multiply_by_parameter_scale": False},
}


def start_of(shape: tuple[int, ...]) -> np.ndarray:
    """The weights at the start, float32."""
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def gradients_of(shape: tuple[int, ...]) -> list[np.ndarray]:
    """The gradient of every step, float32, of several sizes."""
    random = np.random.default_rng(2)
    return [
        (10.0 ** random.uniform(-4, 2) * random.standard_normal(shape)).astype(np.float32)
        for _ in range(STEPS)
    ]


def main() -> None:
    """Runs optax."""
    import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
    import optax  # pyright: ignore[reportMissingImports]

    ends: dict[str, dict[str, list[float]]] = {}
    for name, options in OPTIONS.items():
        optimizer = optax.adafactor(LR, min_dim_size_to_factor=2, **options)
        ends[name] = {}
        for shape_name, shape in SHAPES.items():
            weights = jnp.asarray(start_of(shape))
            state = optimizer.init(weights)
            for gradient in gradients_of(shape):
                change, state = optimizer.update(jnp.asarray(gradient), state, weights)
                weights = optax.apply_updates(weights, change)
            ends[name][shape_name] = [float(f"{n:.9g}") for n in np.asarray(weights).ravel()]
    text = json.dumps({"optax": optax.__version__, "ends": ends})
    FILE.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
