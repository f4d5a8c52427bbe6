"""Rules about what is learned from: the model, the pictures, their captions, how often."""

from __future__ import annotations

import re
from collections.abc import Iterator

from surefoot.config.tuning import FullConfig
from surefoot.finding import Change, Finding, Value
from surefoot.plan import Plan
from surefoot.survey import Survey

_LARGE_STEP = 256
_MUCH_DROPOUT = 0.5
_MUCH_OFFSET = 0.2
_CAPTION_TOKENS = 75
"""What CLIP's text encoder takes beside the marks of beginning and end."""
_DISTILLED = re.compile(r"turbo|lightning|schnell|\blcm\b|hyper[-_]?sd", re.IGNORECASE)
_PIECE = re.compile(r"[^\W\d_]+|\d|(?:[^\s\w]|_)+")
"""What CLIP never joins into one token: runs of letters, single digits, runs of signs."""


def distilled_base(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF205. Source: sd-scripts issue 1822."""
    found = _DISTILLED.search(plan.config.model.path)
    if found:
        yield Finding("SF205", "warning", "model.path", {"word": found[0]})


def part_without_targets(plan: Plan, survey: Survey) -> Iterator[Finding]:
    """SF158. Source: sd-scripts issue 890: a text encoder that was to be trained and was not."""
    tuning = plan.config.tuning
    if isinstance(tuning, FullConfig) or isinstance(tuning.targets, str):
        return
    empty = [part for part in tuning.parts if part in survey.model.parts and not plan.targets[part]]
    for part in empty if len(empty) < len(tuning.parts) else ():
        yield Finding("SF158", "error", "tuning.parts", {"part": part})


def attention_only(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF157. Source: Thinking Machines 2025, "LoRA Without Regret"."""
    tuning = plan.config.tuning
    if not isinstance(tuning, FullConfig) and tuning.targets == "attention":
        yield Finding("SF157", "note", "tuning.targets")


def large_step_of_an_adapter(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF159. Source: Thinking Machines 2025, "LoRA Without Regret"."""
    train = plan.config.train
    pictures = train.batch_size * train.gradient_accumulation
    if pictures >= _LARGE_STEP and not isinstance(plan.config.tuning, FullConfig):
        yield Finding("SF159", "note", "train.batch_size", {"pictures": pictures})


def noise_offset_that_shifts(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF160. Source: Guttenberg 2023, "Diffusion with Offset Noise": 0.1 is what it shows."""
    offset = plan.config.objective.noise_offset
    if offset > _MUCH_OFFSET:
        change = Change("objective.noise_offset", "0.1", f"{offset:g}")
        values: dict[str, Value] = {"offset": offset}
        yield Finding("SF160", "warning", change.path, values, changes=(change,))


def pictures_never_seen(plan: Plan, survey: Survey) -> Iterator[Finding]:
    """SF307. Source: kohya_ss issue 2965."""
    if any(item.unusable and item.path.startswith("data.") for item in survey.findings):
        return
    train = plan.config.train
    batch = train.batch_size * train.gradient_accumulation
    if 0 < plan.steps * batch < plan.pictures_in_epoch:
        needed = -(-plan.pictures_in_epoch // batch)
        change = Change("train.steps", str(needed), str(plan.steps))
        values: dict[str, Value] = {
            "seen": plan.steps * batch,
            "pictures": plan.pictures_in_epoch,
            "needed": needed,
        }
        yield Finding("SF307", "warning", "train.steps", values, changes=(change,))


def captions_cut_off(_plan: Plan, survey: Survey) -> Iterator[Finding]:
    """SF308. Counted without the tokenizer: a caption has at least this many tokens."""
    examples = [example for scan in survey.data for example in scan.examples]
    pieces = {
        item.path.name: max(len(_PIECE.findall(caption)) for caption in item.captions)
        for item in examples
    }
    long = {name: count for name, count in pieces.items() if count > _CAPTION_TOKENS}
    if long:
        worst = max(long, key=lambda name: long[name])
        values: dict[str, Value] = {
            "count": len(long),
            "most": _CAPTION_TOKENS,
            "example": worst,
            "tokens": long[worst],
        }
        yield Finding("SF308", "warning", "data.folders", values)


def captions_mostly_dropped(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF309. Ho & Salimans 2022, section 3.2, dropped 10 to 20 %."""
    dropped = plan.config.captions.dropout
    if dropped > _MUCH_DROPOUT:
        change = Change("captions.dropout", "0.1", f"{dropped:g}")
        values: dict[str, Value] = {"percent": 100 * dropped}
        yield Finding("SF309", "warning", change.path, values, changes=(change,))


def validated_on_what_is_trained(_plan: Plan, survey: Survey) -> Iterator[Finding]:
    """SF310. Then the validation loss falls with the training loss and shows no overfitting."""
    trained = {example.path for scan in survey.data for example in scan.examples}
    shared = [item.path for item in survey.validation.examples if item.path in trained]
    if shared:
        values: dict[str, Value] = {
            "count": len(shared),
            "pictures": len(survey.validation.examples),
            "example": shared[0].name,
        }
        yield Finding("SF310", "warning", "validation.folder", values)


SET_RULES = (
    distilled_base,
    part_without_targets,
    attention_only,
    large_step_of_an_adapter,
    noise_offset_that_shifts,
    pictures_never_seen,
    captions_cut_off,
    captions_mostly_dropped,
    validated_on_what_is_trained,
)
