"""No input file, however broken, gives a traceback or a write; each gives an answer."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.inputs import TARGETS

# What readers of text and of binary headers trip over.
TOKENS = (
    *(b"[" * 3000, b'{"a":' * 3000, b"9" * 5000, b"1e999", b"-0.0", b"nan", b"\xff\xfe", b"\0"),
    *(b"\xef\xbb\xbf", b"!!python/object/apply:os.system [id]\n", b"*a", b"&a ", b"<<: ", b"%YAML"),
    *(b'"""', b"'''", b"\\u0000", b"\\ud800", b"[[", b"]]", b"{}", b"[]", b"null", b"true", b"~"),
    *(b"\r", b"\t", b"=", b":", b".", b"a.b.c", b"__metadata__", b"\xff\xff\xff\xff\xff\xff\xff"),
)


@st.composite
def garbled(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file cut, doubled, overwritten or stuffed in up to four places."""
    content = whole
    for _change in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, min(len(content), start + 40)))
        put = draw(st.sampled_from(TOKENS) | st.binary(max_size=6) | st.just(content[start:end]))
        keep = draw(st.booleans())
        content = content[: end if keep else start] + put + content[end:]
    return content


@pytest.mark.parametrize("target", TARGETS)
@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_a_garbled_file_gets_an_answer(target: str, data: st.DataObject) -> None:
    run, wholes = TARGETS[target]
    name = data.draw(st.sampled_from(sorted(wholes)))
    content = data.draw(garbled(wholes[name]))
    with tempfile.TemporaryDirectory() as folder:
        run(name, content, Path(folder))


@pytest.mark.parametrize(
    ("target", "name"),
    [(target, name) for target, (_, wholes) in TARGETS.items() for name in wholes],
)
def test_the_whole_files_are_fine(target: str, name: str, tmp_path: Path) -> None:
    run, wholes = TARGETS[target]
    run(name, wholes[name], tmp_path)
