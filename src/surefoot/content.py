"""What a run is made of beyond its settings: the model's weights and the pictures. No torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from surefoot.data.scan import Scan
from surefoot.survey import ModelSurvey

_SAMPLE = 65_536  # bytes, at the beginning, the middle and the end of a file


def content_digest(model: ModelSurvey, data: tuple[Scan, ...]) -> str:
    """A digest that changes when the model's weights, a picture or a caption change.

    Files are sampled and not read whole, so that a 12 GB model costs nothing; folders may move.
    """
    digest = hashlib.sha256()
    for name, part in sorted(model.parts.items()):
        shapes = {key: [header.dtype, header.shape] for key, header in part.headers.items()}
        digest.update(json.dumps([name, shapes]).encode())
        digest.update(_sample(part.file))
    for scan in data:
        for example in scan.examples:
            place = [example.path.name, *example.captions]
            digest.update(json.dumps(place).encode())
            digest.update(_sample(example.path))
    return digest.hexdigest()[:16]


def _sample(path: Path) -> bytes:
    """Size and pieces of a file; nothing if it is gone, which is found out where it is needed."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            pieces = [str(size).encode(), file.read(_SAMPLE)]
            for start in (size // 2, size - _SAMPLE):
                if start > _SAMPLE:
                    file.seek(start)
                    pieces.append(file.read(_SAMPLE))
    except OSError:
        return b""
    return b"".join(pieces)
