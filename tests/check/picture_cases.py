"""Cases of the rules about the sizes of pictures and how often each is seen."""

from __future__ import annotations

from tests.check.rule_cases import Case

_TWO = 'data.folders=[{{path="pictures", {first}}}, {{path="pictures", {second}}}]'


def _folders(first: str, second: str) -> str:
    return _TWO.format(first=first, second=second)


PICTURE_CASES = (
    Case(
        "SF028",
        "buckets_that_do_not_fit",
        "error",
        ("data.bucket_step=24",),
        (("data.bucket_step=16",), ("data.bucket_step=32",), ()),
        {"step": 24, "multiple": 16},
        "data.bucket_step",
    ),
    Case(
        "SF029",
        "pictures_left_out",
        "error",
        ("data.small_pictures=leave_out", "data.resolution=128"),
        (
            ("data.small_pictures=leave_out",),
            ("data.resolution=128",),
            ("data.small_pictures=smaller_bucket", "data.resolution=128"),
        ),
        {"count": 2, "pictures": 2, "example": "0.png", "bucket": "128x128"},
        "data.small_pictures",
    ),
    Case(
        "SF321",
        "pictures_left_out",
        "warning",
        ("data.small_pictures=leave_out", "data.resolution=[64, 128]"),
        (("data.small_pictures=leave_out", "data.resolution=[32, 64]"),),
        {"count": 2, "width": 64, "height": 64, "bucket": "128x128"},
        "data.small_pictures",
    ),
    Case(
        "SF324",
        "chance_drawn_once",
        "warning",
        ("data.colour_jitter=0.1", "data.variants=1"),
        (
            ("data.colour_jitter=0.1",),
            ("data.variants=1",),
            ("data.crop=random", "data.variants=1", "data.cache=off"),
            ("data.crop=random", "data.variants=2"),
        ),
        {},
        "data.variants",
    ),
    Case(
        "SF325",
        "samples_and_repeats",
        "error",
        (_folders("samples=3", "samples=3, repeats=2"),),
        ((_folders("samples=3", "repeats=2"),), ()),
        {"samples": 3, "repeats": 2},
        "data.folders.1.repeats",
    ),
    Case(
        "SF326",
        "nothing_to_learn_from",
        "error",
        (_folders('role="regularisation"', 'role="regularisation"'),),
        ((_folders('role="train"', 'role="regularisation"'),),),
        {},
        "data.folders",
    ),
    Case(
        "SF327",
        "more_regularisation_than_training",
        "warning",
        (_folders("repeats=1", 'role="regularisation", repeats=2'),),
        (
            (_folders("repeats=2", 'role="regularisation", repeats=2'),),
            (_folders("samples=1", 'role="regularisation", samples=1'),),
        ),
        {"train": 2, "regularisation": 4},
        "data.folders",
    ),
)
