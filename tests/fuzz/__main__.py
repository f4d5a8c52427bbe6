"""Fuzzing with coverage: `python -m tests.fuzz check -max_total_time=600`.

The first argument names what is fed (see `inputs.TARGETS`), the others are libFuzzer's. It needs
`pip install atheris`. An input that fails is kept as `crash-*` beside the caller, and reproduced
with `python -m tests.fuzz check crash-...`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris  # pyright: ignore

with atheris.instrument_imports(include=["surefoot"]):  # pyright: ignore
    from tests.fuzz.inputs import TARGETS


def main() -> None:
    """Feeds bytes whose first says which whole file's name, and so which reader, they go by."""
    run, wholes = TARGETS[sys.argv.pop(1)]
    names = sorted(wholes)

    def feed(content: bytes) -> None:
        if content:
            with tempfile.TemporaryDirectory() as folder:
                run(names[content[0] % len(names)], content[1:], Path(folder))

    with tempfile.TemporaryDirectory() as seeds:
        for number, name in enumerate(names):
            (Path(seeds) / name).write_bytes(bytes([number]) + wholes[name])
        # A file that is named is run once; a folder besides would be taken for another.
        again = any(Path(word).is_file() for word in sys.argv[1:])
        words = sys.argv if again else [*sys.argv, seeds]
        atheris.Setup([*words, "-timeout=20", "-rss_limit_mb=3000"], feed)
        atheris.Fuzz()


main()
