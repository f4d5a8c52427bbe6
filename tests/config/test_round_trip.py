"""Any valid config, written as TOML and read back."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot.config.load import load


def positive(highest: float) -> st.SearchStrategy[float]:
    return st.floats(1e-12, highest, allow_subnormal=False)


# Text that a TOML string can hold; a path has no control characters.
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
paths = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
counts = st.integers(1, 10**6)
parts = st.lists(st.sampled_from(["unet", "text_encoder"]), min_size=1, max_size=2)
targets = st.sampled_from(["attention", "attention+feed_forward", "linear", "all"]) | st.lists(
    text, min_size=1, max_size=3
)


def section(
    required: dict[str, st.SearchStrategy[Any]] | None = None,
    **optional: st.SearchStrategy[Any],
) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required or {}, optional=optional)


def adapter(kind: str, **own: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return section(
        {"kind": st.just(kind)},
        parts=parts,
        rank=st.integers(1, 4096),
        alpha=positive(1e6) | st.just("auto"),
        targets=targets,
        rank_pattern=st.dictionaries(text, st.integers(1, 4096), max_size=3),
        alpha_pattern=st.dictionaries(text, positive(1e6) | st.just("auto"), max_size=3),
        rslora=st.booleans(),
        dropout=st.floats(0, 0.99),
        **own,
    )


def schedule(kind: str, **optional: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    warmup = {"warmup_steps": st.integers(0, 99), "warmup_fraction": st.floats(0, 0.99)}
    return section({"kind": st.just(kind)}, **warmup, **optional)


adafactor = section(
    kind=st.just("adafactor"),
    lr=positive(10) | st.just("auto"),
    scale_parameter=st.booleans() | st.just("weight"),
    relative_step=st.booleans(),
    warmup_init=st.booleans(),
    clip_threshold=positive(1e3),
    decay_rate=st.floats(-2, -0.01),
    beta1=st.floats(0, 0.99),
    eps1=positive(1),
    eps2=st.floats(0, 1),
    weight_decay=st.floats(0, 1),
)
adamw = section(
    {"kind": st.just("adamw")},
    lr=positive(10) | st.just("auto"),
    beta1=st.floats(0, 0.99),
    beta2=st.floats(0, 0.9999),
    eps=positive(1),
    weight_decay=st.floats(0, 1),
)
decays = st.floats(0, 0.9999)
libraries = (
    section(
        {"kind": st.just("muon")},
        lr=positive(10) | st.just("auto"),
        nesterov=st.booleans(),
        ns_steps=st.integers(1, 20),
    )
    | section(
        {"kind": st.just("prodigy")},
        beta3=decays | st.just("auto"),
        growth_rate=st.floats(1.01, 2) | st.just("off"),
        d0=positive(1),
    )
    | section(
        {"kind": st.just("pytorch_optimizer"), "name": st.just("AdaBelief")},
        arguments=st.dictionaries(
            st.from_regex(r"[a-z_]{1,9}", fullmatch=True),
            st.booleans()
            | st.integers(-9, 9)
            | st.floats(-9, 9)
            | text
            | st.lists(st.integers(0, 9) | st.floats(0, 9) | st.booleans(), max_size=3),
            max_size=4,
        ),
    )
)
folders = st.lists(section({"path": paths}, repeats=counts), min_size=1, max_size=3)
documents = section(
    {
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True),
        "model": section(
            {"path": paths},
            config=paths,
            prediction=st.sampled_from(["auto", "epsilon", "v_prediction"]),
        ),
        "data": section(
            {"folders": folders},
            resolution=st.integers(8, 8192) | st.just("auto"),
            flip=st.booleans(),
            cache=st.sampled_from(["disk", "off"]),
        ),
        "captions": section(
            {},
            missing=st.sampled_from(["error", "empty"]),
            dropout=st.floats(0, 1),
            trigger=paths,
            shuffle=st.booleans(),
            keep_tags=st.integers(0, 9),
        ),
        "train": section(
            {"steps": counts},
            batch_size=counts,
            clip_grad_norm=positive(1e3) | st.just("off"),
            precision=st.sampled_from(["fp32", "bf16"]),
            ema=st.floats(0.001, 0.999) | st.just("off"),
            device=st.sampled_from(["auto", "cpu", "cuda", "cuda:1", "mps"]),
        ),
    },
    format=st.just(1),
    folder=paths,
    seed=st.integers(0, 2**63 - 1),
    tuning=adapter("dora", norm_axis=st.sampled_from(["output", "input"]))
    | adapter("lora")
    | adapter("loha")
    | adapter("lokr", factor=st.integers(2, 64) | st.just("auto"), decompose_both=st.booleans())
    | section({"kind": st.just("full")}, parts=parts),
    optimizer=adafactor | adamw | libraries,
    schedule=schedule("constant")
    | schedule("linear", end_factor=st.floats(0, 1))
    | schedule("cosine", end_factor=st.floats(0, 1))
    | schedule("cosine_restarts", cycles=st.integers(1, 100), cycle_multiplier=st.floats(1, 10))
    | schedule("polynomial", power=positive(10))
    | schedule("inverse_sqrt", timescale=counts | st.just("auto"))
    | schedule("rex", end_factor=st.floats(0, 1)),
    objective=section(
        loss=st.sampled_from(["mse", "huber", "smooth_l1"]),
        huber_delta=positive(1),
        huber_schedule=st.sampled_from(["constant", "exponential", "snr"]),
        snr_gamma=positive(20) | st.just("off"),
        debiased=st.booleans(),
        noise_offset=st.floats(0, 1),
        input_perturbation=st.floats(0, 1),
        pyramid_noise=st.floats(0.1, 0.9) | st.just("off"),
        timesteps=st.sampled_from(["uniform", "logit_normal"]),
        timestep_mean=st.floats(-10, 10),
        timestep_shift=positive(100) | st.just("auto"),
        timestep_min=st.floats(0, 0.9),
    ),
    validation=section(folder=paths, every=counts | st.just("auto"), draws=counts),
    preview=section(
        prompts=st.lists(text, max_size=3), guidance=st.floats(1, 30), steps=st.integers(1, 1000)
    ),
    save=section(every=counts | st.just("auto"), keep=counts),
)


@settings(max_examples=40, deadline=None)
@given(document=documents)
def test_config_written_as_toml_is_read_back_as_it_was(
    document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("run") / "run.toml"
    path.write_text(tomlkit.dumps(document), encoding="utf-8", newline="")
    config = load(path).config
    dumped = json.loads(config.model_dump_json())
    path.write_text(tomlkit.dumps(dumped), encoding="utf-8", newline="")
    assert load(path).config == config
    assert_kept(document, dumped)


def assert_kept(asked: object, found: object) -> None:
    """What was asked is in what was found, which has the defaults too."""
    if isinstance(asked, dict):
        assert isinstance(found, dict)
        for key, value in asked.items():
            assert_kept(value, found[key])
    elif isinstance(asked, list):
        assert isinstance(found, list)
        assert len(asked) == len(found)
        for left, right in zip(asked, found, strict=True):
            assert_kept(left, right)
    else:
        assert found == asked
        assert isinstance(found, bool) == isinstance(asked, bool)
