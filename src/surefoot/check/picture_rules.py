"""Rules about the sizes of pictures, what is cut off of them, and how often each is seen."""

from __future__ import annotations

from collections.abc import Iterator

from surefoot.data.buckets import kept_share, scale_of
from surefoot.data.views import resolutions_of
from surefoot.finding import Change, Finding, Value
from surefoot.plan import Plan, planned_views, size_multiple
from surefoot.survey import Survey

_MUCH_CUT = 0.2
"""Share of a picture. Buckets of 64 pixels cut off a tenth at most."""


def resolution_that_does_not_fit(plan: Plan, survey: Survey) -> Iterator[Finding]:
    """SF027. Every level of the network halves the latents."""
    if not survey.model.parts:
        return
    data, native = plan.config.data, survey.model.sample_size
    asked = {
        "data.resolution" if folder.resolution == "auto" else f"data.folders.{number}.resolution": (
            resolutions_of(folder, data, native)
        )
        for number, folder in enumerate(data.folders)
    }
    multiple = size_multiple(survey.model)
    for path, sides in asked.items():
        for side in sides:
            if side % multiple:
                values: dict[str, Value] = {
                    "resolution": side,
                    "multiple": multiple,
                    "below": max(multiple, side // multiple * multiple),
                    "above": (side // multiple + 1) * multiple,
                }
                yield Finding("SF027", "error", path, values)


def buckets_that_do_not_fit(plan: Plan, survey: Survey) -> Iterator[Finding]:
    """SF028. As SF027, for the sides of buckets."""
    step, multiple = plan.config.data.bucket_step, size_multiple(survey.model)
    if survey.model.parts and step != "auto" and step % multiple:
        change = Change("data.bucket_step", '"auto"', str(step))
        values: dict[str, Value] = {"step": step, "multiple": multiple}
        yield Finding("SF028", "error", "data.bucket_step", values, changes=(change,))


def pictures_scaled_up(plan: Plan, survey: Survey) -> Iterator[Finding]:
    """SF304."""
    scales = {
        view.example.path: scale_of(view.example.width, view.example.height, view.size)
        for view in planned_views(plan.config, survey).views
    }
    small = {path: scale for path, scale in scales.items() if scale > 1}
    if small:
        worst = max(small, key=lambda path: small[path])
        values: dict[str, Value] = {
            "count": len(small),
            "pictures": plan.pictures,
            "example": worst.name,
            "factor": small[worst],
        }
        yield Finding("SF304", "warning", "data.folders", values)


def pictures_left_out(plan: Plan, survey: Survey) -> Iterator[Finding]:
    """SF321, and SF029 where none is left. Source: OneTrainer issues 267 and 573."""
    left_out = planned_views(plan.config, survey).left_out
    if left_out:
        pictures = {view.example.path: view for view in left_out}
        first = next(iter(pictures.values()))
        values: dict[str, Value] = {
            "count": len(pictures),
            "pictures": plan.pictures,
            "example": first.example.path.name,
            "width": first.example.width,
            "height": first.example.height,
            "bucket": str(first.size),
        }
        if plan.buckets:
            yield Finding("SF321", "warning", "data.small_pictures", values)
        else:
            yield Finding("SF029", "error", "data.small_pictures", values)


def pictures_cropped(plan: Plan, survey: Survey) -> Iterator[Finding]:
    """SF322. Source: OneTrainer issue 646. Heads and feet lie at the edge."""
    kept = {
        view.example.path: kept_share(view.example.width, view.example.height, view.size)
        for view in planned_views(plan.config, survey).views
    }
    cut = {path: share for path, share in kept.items() if share < 1 - _MUCH_CUT}
    if cut:
        worst = min(cut, key=lambda path: cut[path])
        values: dict[str, Value] = {
            "count": len(cut),
            "pictures": plan.pictures,
            "percent": 100 * _MUCH_CUT,
            "example": worst.name,
            "lost": 100 * (1 - cut[worst]),
        }
        changes = (
            (Change("data.buckets", '"auto"', '"off"'),)
            if plan.config.data.buckets == "off"
            else ()
        )
        yield Finding("SF322", "note", "data.buckets", values, changes=changes)


def buckets_smaller_than_a_batch(plan: Plan, survey: Survey) -> Iterator[Finding]:
    """SF323. A batch of such a bucket holds a picture more than once."""
    batch = plan.config.train.batch_size
    small = [item for item in plan.buckets if item.pictures < batch]
    if small and len(plan.buckets) > 1:
        values: dict[str, Value] = {
            "count": len(small),
            "buckets": len(plan.buckets),
            "batch": batch,
            "example": f"{small[0].width}x{small[0].height}",
            "held": small[0].pictures,
        }
        yield Finding("SF323", "note", "train.batch_size", values)


def chance_drawn_once(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF324. A cache holds what was drawn when a picture was encoded."""
    data = plan.config.data
    if data.is_varied and data.cache == "disk" and data.kept_variants == 1:
        change = Change("data.variants", '"auto"', "1")
        yield Finding("SF324", "warning", "data.variants", changes=(change,))


def samples_and_repeats(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF325. Both say how often pictures are seen: one of the two would be ignored."""
    for number, folder in enumerate(plan.config.data.folders):
        if folder.samples != "off" and folder.repeats > 1:
            values: dict[str, Value] = {"samples": folder.samples, "repeats": folder.repeats}
            path = f"data.folders.{number}.repeats"
            change = Change(path, "1", str(folder.repeats), same=True)
            yield Finding("SF325", "error", path, values, changes=(change,))


def nothing_to_learn_from(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF326. Regularisation pictures show what is known already."""
    if all(folder.role == "regularisation" for folder in plan.config.data.folders):
        yield Finding("SF326", "error", "data.folders")


def more_regularisation_than_training(plan: Plan, survey: Survey) -> Iterator[Finding]:
    """SF327. Ruiz et al. 2023, DreamBooth, section 3.2: one for each picture that is learned."""
    sources = planned_views(plan.config, survey).sources
    folders = zip(plan.config.data.folders, sources, strict=True)
    seen = {"train": 0, "regularisation": 0}
    for folder, source in folders:
        seen[folder.role] += source.per_epoch if source.buckets else 0
    if 0 < seen["train"] < seen["regularisation"]:
        yield Finding("SF327", "warning", "data.folders", {**seen})


PICTURE_RULES = (
    resolution_that_does_not_fit,
    buckets_that_do_not_fit,
    pictures_scaled_up,
    pictures_left_out,
    pictures_cropped,
    buckets_smaller_than_a_batch,
    chance_drawn_once,
    samples_and_repeats,
    nothing_to_learn_from,
    more_regularisation_than_training,
)
