"""Which pictures are seen at which sizes, how often and with what weight. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from surefoot.config.data import DataConfig, FolderConfig
from surefoot.data.buckets import Size, bucket_sizes, nearest_bucket, scale_of, smaller_bucket
from surefoot.data.scan import Example, Scan


@dataclass(frozen=True)
class View:
    """A picture at one size, and what its loss is multiplied by."""

    example: Example
    size: Size
    weight: float = 1.0


@dataclass(frozen=True)
class Source:
    """Pictures that share a place in the epoch: one folder.

    Attributes:
        buckets: The bucket of each of its items, as a number from 0.
        per_epoch: How many items an epoch takes of it; a multiple of their number takes each as
            often. Otherwise the epochs go on where the last one ended: of 10 items with 4 an
            epoch, 5 epochs show each of them twice.
    """

    buckets: tuple[int, ...]
    per_epoch: int


@dataclass(frozen=True)
class Views:
    """All views of a set of folders, numbered through.

    Attributes:
        views: Of all folders, in their order.
        sources: For `Batches`: of each folder, the buckets of its views, by number.
        sizes: The size of each bucket.
        left_out: Views that were not made, since their pictures are too small.
    """

    views: tuple[View, ...]
    sources: tuple[Source, ...]
    sizes: tuple[Size, ...]
    left_out: tuple[View, ...] = ()

    @property
    def in_epoch(self) -> int:
        """Views in one epoch."""
        return sum(source.per_epoch for source in self.sources if source.buckets)


def resolutions_of(folder: FolderConfig, data: DataConfig, native: int) -> tuple[int, ...]:
    """The resolutions of a folder, each once; `native` is the model's own."""
    asked = data.resolution if folder.resolution == "auto" else folder.resolution
    if asked == "auto":
        return (native,)
    return tuple(dict.fromkeys((asked,) if isinstance(asked, int) else asked))


def training_views(scans: Sequence[Scan], data: DataConfig, *, native: int, step: int) -> Views:
    """The views of the training folders.

    Args:
        scans: What each folder holds.
        data: What was asked.
        native: The model's own resolution.
        step: Sides of buckets are multiples of this.
    """
    views: list[View] = []
    left_out: list[View] = []
    made: list[tuple[int, int, FolderConfig]] = []
    for scan, folder in zip(scans, data.folders, strict=True):
        weight = folder.loss_weight
        if folder.role == "regularisation":
            weight *= data.prior_weight
        first = len(views)
        for resolution in resolutions_of(folder, data, native):
            kept, small = _at(scan.examples, resolution, data, step, weight)
            views += kept
            left_out += small
        made.append((first, len(views), folder))
    sizes = tuple(sorted({view.size for view in views}, key=lambda size: (size.area, size)))
    number = {size: place for place, size in enumerate(sizes)}
    sources = tuple(
        Source(
            tuple(number[view.size] for view in views[first:end]),
            folder.repeats * (end - first) if folder.samples == "off" else folder.samples,
        )
        for first, end, folder in made
    )
    return Views(tuple(views), sources, sizes, tuple(left_out))


def validation_views(
    examples: Sequence[Example], data: DataConfig, *, resolution: int, step: int
) -> tuple[View, ...]:
    """Held-out pictures at one resolution, all of them, those of one size together."""
    scaled = data.model_copy(update={"small_pictures": "scale_up"})
    views, _none = _at(examples, resolution, scaled, step, 1.0)
    return tuple(sorted(views, key=lambda view: (view.size.area, view.size)))


def _at(
    examples: Sequence[Example], resolution: int, data: DataConfig, step: int, weight: float
) -> tuple[list[View], list[View]]:
    """Views at one resolution: those that are made, and those that are left out."""
    if resolution < 1:  # of a model that could not be read, which is told
        return [], []
    ratio = data.longest_ratio if data.buckets == "auto" else 1.0
    sizes = bucket_sizes(resolution, step, ratio)
    kept: list[View] = []
    left_out: list[View] = []
    for example in examples:
        size = nearest_bucket(example.width, example.height, sizes)
        small = scale_of(example.width, example.height, size) > 1
        if small and data.small_pictures == "smaller_bucket":
            size = smaller_bucket(example.width, example.height, size, step)
        leave = small and data.small_pictures == "leave_out"
        (left_out if leave else kept).append(View(example, size, weight))
    return kept, left_out
