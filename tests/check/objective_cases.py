"""Cases of the rules about what is minimised."""

from __future__ import annotations

from tests.check.rule_cases import Case

ZERO = "model.zero_terminal_snr=true"
V = "model.prediction=v_prediction"
GAMMA = "objective.snr_gamma=5"
DEBIASED = "objective.debiased=true"

OBJECTIVE_CASES = (
    Case(
        "SF203",
        "zero_terminal_signal",
        "error",
        (ZERO,),
        ((ZERO, V), ("model.zero_terminal_snr=false",), ()),
        {},
        "model.zero_terminal_snr",
    ),
    Case(
        "SF204",
        "weights_divided_by_zero",
        "error",
        (ZERO, DEBIASED),
        ((DEBIASED,), (ZERO, V, DEBIASED)),
        {"key": "objective.debiased", "given": "true"},
        "objective.debiased",
    ),
    Case(
        "SF206",
        "last_level_without_weight",
        "warning",
        (ZERO, V, GAMMA),
        ((ZERO, V), (V, GAMMA)),
        {"key": "objective.snr_gamma", "given": "5"},
        "objective.snr_gamma",
    ),
    Case(
        "SF207",
        "weighted_twice",
        "error",
        (DEBIASED, GAMMA),
        ((DEBIASED,), (GAMMA,)),
        {},
        "objective.debiased",
    ),
    Case(
        "SF208",
        "timesteps_without_room",
        "error",
        ("objective.timestep_min=0.5", "objective.timestep_max=0.5"),
        (("objective.timestep_min=0.4", "objective.timestep_max=0.9"),),
        {"least": 0.5, "most": 0.5},
        "objective.timestep_min",
    ),
    Case(
        "SF209",
        "objective_keys_without_effect",
        "warning",
        ("objective.huber_delta=0.2",),
        (
            ("objective.huber_delta=0.2", "objective.loss=huber"),
            ("objective.huber_delta=0.2", "objective.loss=smooth_l1"),
            ("objective.huber_delta=0.1",),
        ),
        {"key": "objective.huber_delta", "other": "objective.loss"},
        "objective.huber_delta",
    ),
    Case(
        "SF209",
        "objective_keys_without_effect",
        "warning",
        ("objective.timestep_std=2",),
        (("objective.timestep_std=2", "objective.timesteps=logit_normal"),),
        {"key": "objective.timestep_std", "other": "objective.timesteps"},
        "objective.timestep_std",
    ),
    Case(
        "SF210",
        "middle_left_out",
        "warning",
        ("objective.timestep_min=0.75",),
        (("objective.timestep_min=0.5",), ()),
        {"percent": 25.0},
        "objective.timestep_min",
    ),
)
