"""Rules about what is minimised: the loss, its weights, the noise levels."""

from __future__ import annotations

from collections.abc import Iterator

from surefoot.config.objective import ObjectiveConfig
from surefoot.finding import Change, Finding, Value
from surefoot.plan import Plan
from surefoot.survey import Survey


def zero_terminal_signal(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF203. A network that predicts the noise has nothing to say where there is only noise.

    Source: Lin et al. 2023, "Common Diffusion Noise Schedules and Sample Steps are Flawed".
    """
    if not plan.zero_terminal_snr or plan.prediction != "epsilon":
        return
    asked = plan.config.model.zero_terminal_snr is True
    if asked:
        change = Change("model.zero_terminal_snr", '"auto"', "true")
        yield Finding("SF203", "error", "model.zero_terminal_snr", changes=(change,))
    else:
        yield Finding("SF203", "warning", "model.prediction")


def weights_divided_by_zero(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF204. Of predicted noise both weightings divide by the ratio of signal to noise.

    Source: Min-SNR's repository, issue 4.
    """
    if plan.zero_terminal_snr and plan.prediction == "epsilon":
        for weights in _weights(plan):
            values: dict[str, Value] = {"key": weights.path, "given": weights.before}
            yield Finding("SF204", "error", weights.path, values, changes=(weights,))


def last_level_without_weight(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF206. Both weightings count the last level by its ratio of signal to noise, which is 0.

    Source: Hang et al. 2023, section 3.4, with the schedule of Lin et al. 2023.
    """
    if plan.zero_terminal_snr and plan.prediction == "v_prediction":
        for weights in _weights(plan):
            values: dict[str, Value] = {"key": weights.path, "given": weights.before}
            yield Finding("SF206", "warning", weights.path, values, changes=(weights,))


def weighted_twice(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF207. Min-SNR and debiased weights are two answers to one question."""
    weights = _weights(plan)
    if len(weights) > 1:
        yield Finding("SF207", "error", "objective.debiased", changes=(weights[1],))


def timesteps_without_room(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF208. Nothing lies between the two ends."""
    objective = plan.config.objective
    least, most = objective.timestep_min, objective.timestep_max
    if least >= most:
        values: dict[str, Value] = {"least": least, "most": most}
        yield Finding("SF208", "error", "objective.timestep_min", values)


def objective_keys_without_effect(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF209. Source: kohya_ss issues 2777 and 2796, where a knob that nothing reads was tuned."""
    objective = plan.config.objective
    needs = {
        "timestep_mean": ("timesteps", "logit_normal", objective.timesteps == "logit_normal"),
        "timestep_std": ("timesteps", "logit_normal", objective.timesteps == "logit_normal"),
        "huber_delta": ("loss", "huber", objective.loss != "mse"),
        "huber_schedule": ("loss", "huber", objective.loss != "mse"),
    }
    for key, (other, value, met) in needs.items():
        if not met and getattr(objective, key) != ObjectiveConfig.model_fields[key].default:
            values: dict[str, Value] = {"key": f"objective.{key}", "other": f"objective.{other}"}
            change = Change(f"objective.{other}", f'"{value}"', f'"{getattr(objective, other)}"')
            yield Finding("SF209", "warning", f"objective.{key}", values, changes=(change,))


def middle_left_out(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF210. A narrow part of the noise levels teaches a part of the picture."""
    objective = plan.config.objective
    share = objective.timestep_max - objective.timestep_min
    if 0 < share < _NARROW:
        values: dict[str, Value] = {"percent": 100 * share}
        yield Finding("SF210", "warning", "objective.timestep_min", values)


_NARROW = 0.3


def _weights(plan: Plan) -> list[Change]:
    """The weightings by noise level that are on, as what would turn each off."""
    objective = plan.config.objective
    found: list[Change] = []
    if objective.snr_gamma != "off":
        found.append(Change("objective.snr_gamma", '"off"', f"{objective.snr_gamma:g}"))
    if objective.debiased:
        found.append(Change("objective.debiased", "false", "true"))
    return found


OBJECTIVE_RULES = (
    zero_terminal_signal,
    weights_divided_by_zero,
    last_level_without_weight,
    weighted_twice,
    timesteps_without_room,
    objective_keys_without_effect,
    middle_left_out,
)
