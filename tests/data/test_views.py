"""Views: which pictures at which sizes, how often and with what weight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from surefoot.config.data import DataConfig
from surefoot.data.buckets import Size
from surefoot.data.scan import Example, Scan
from surefoot.data.views import Views, training_views, validation_views

SHAPES = ((512, 512), (1024, 512), (100, 100), (300, 700))


def scan(*shapes: tuple[int, int]) -> Scan:
    examples = [
        Example(Path(f"{number}.png"), ("a shape",), width, height)
        for number, (width, height) in enumerate(shapes)
    ]
    return Scan(tuple(examples), ())


def made(*folders: dict[str, Any], **data: Any) -> Views:
    config = DataConfig.model_validate(
        {"folders": [{"path": "x", **folder} for folder in folders], **data}
    )
    return training_views([scan(*SHAPES)] * len(folders), config, native=512, step=64)


def test_each_picture_has_one_view_at_each_resolution() -> None:
    views = made({}, resolution=[256, 512])
    seen = [(view.example.path.name, view.size) for view in views.views]
    assert len(seen) == len(set(seen)) == 8
    assert [size for name, size in seen if name == "0.png"] == [Size(256, 256), Size(512, 512)]
    assert [size for name, size in seen if name == "1.png"] == [Size(320, 192), Size(640, 384)]


def test_without_buckets_all_views_are_squares() -> None:
    assert {view.size for view in made({}, buckets="off").views} == {Size(512, 512)}


def test_small_pictures_are_scaled_up_or_get_smaller_or_are_left_out() -> None:
    scaled = made({})
    assert {view.example.path.name: view.size for view in scaled.views}["2.png"] == Size(512, 512)
    smaller = made({}, small_pictures="smaller_bucket")
    sizes = {view.example.path.name: view.size for view in smaller.views}
    assert sizes["2.png"] == Size(64, 64)
    assert sizes["3.png"] == Size(256, 640)
    left = made({}, small_pictures="leave_out")
    assert [view.example.path.name for view in left.left_out] == ["2.png", "3.png"]
    assert [view.example.path.name for view in left.views] == ["0.png", "1.png"]


def test_repeats_samples_and_weights_are_those_of_the_folder() -> None:
    views = made(
        {"repeats": 3},
        {"samples": 5, "loss_weight": 0.5},
        {"role": "regularisation", "loss_weight": 0.5},
        prior_weight=0.1,
    )
    assert [source.per_epoch for source in views.sources] == [12, 5, 4]
    assert views.in_epoch == 21
    weights = [view.weight for view in views.views]
    assert weights == pytest.approx([1.0] * 4 + [0.5] * 4 + [0.05] * 4)
    for source in views.sources:
        assert [views.sizes[number] for number in source.buckets] == [
            view.size for view in views.views[:4]
        ]


def test_held_out_pictures_are_all_kept_and_ordered_by_size() -> None:
    config = DataConfig.model_validate({"folders": [{"path": "x"}], "small_pictures": "leave_out"})
    views = validation_views(scan(*SHAPES).examples, config, resolution=512, step=64)
    assert sorted(view.example.path.name for view in views) == [
        "0.png", "1.png", "2.png", "3.png",
    ]  # fmt: skip
    sizes = [view.size for view in views]
    assert [size for place, size in enumerate(sizes) if size not in sizes[:place]] == sorted(
        set(sizes), key=lambda size: (size.area, size)
    )
