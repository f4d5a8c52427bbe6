"""No file, however broken, gives a traceback, a hang or a write: one clear sentence each."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from surefoot.cli import command_line
from surefoot.config.text_file import MOST_BYTES
from surefoot.finding import Refused
from surefoot.importers.document import Unreadable, flattened
from surefoot.importers.json_text import read_json
from surefoot.importers.reading import readings
from surefoot.importers.recognise import recognise
from surefoot.importers.run_file import run_toml
from surefoot.importers.yaml_text import read_yaml
from tests.importers.readings import FILES

DEEP = 5_000
BROKEN = [
    ("a.json", b'{"training_method": "LORA", "lora_rank": }', "SF090", "a value is expected"),
    ("a.json", b'{"training_method": "LORA"\n "x": 1}', "SF090", "line 2"),
    ("a.json", b"[1, 2]", "SF090", "not a table"),
    ("a.json", b'{"a": ' * DEEP, "SF090", "nested too deep"),
    ("a.json", b'{"a": ' + b"9" * 5_000 + b"}", "SF090", "too many digits"),
    ("a.yaml", b"job: [extension\nconfig: {", "SF090", "line"),
    ("a.yaml", b"config: !!python/object/apply:os.system [echo]\n", "SF090", "only a program"),
    ("a.yaml", b"a: " + b"[" * DEEP, "SF090", "nested too deep"),
    ("a.yaml", b"- 1\n- 2\n", "SF090", "not a table"),
    ("a.env", b"this is no variable\n", "SF090", "NAME=value"),
    ("a.json", b'{"colour": "red"}', "SF091", "neither a run.toml"),
    ("a.sh", b"echo hello\n", "SF091", "neither a run.toml"),
    ("a.json", b"\x00\x01\x02", "SF001", "binary"),
    ("a.json", b"\xff\xfa\xfa", "SF001", "UTF-8"),
    ("a.json", b" " * (MOST_BYTES + 1), "SF001", "4 MB"),
    ("a.json", b'{"training_method": "LORA", "learning_rate": "fast"}', "SF093", "a number"),
    (
        "two.sh",
        b"python train_network.py --network_module a\npython train_db.py --network_module b\n",
        "SF095",
        "train_network.py, train_db.py",
    ),
    (
        "both.json",
        b'{"training_method": "LORA", "config": {"process": [{"type": "sd_trainer"}]}}',
        "SF092",
        "ai-toolkit / OneTrainer",
    ),
]
ALIASES = "a0: &a0 [x, x]\n" + "".join(
    f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}, *a{n}, *a{n}]\n" for n in range(30)
)


@pytest.mark.parametrize("verb", ["check", "import"])
@pytest.mark.parametrize(("name", "content", "code", "words"), BROKEN)
def test_broken_file_is_refused_in_one_sentence(
    verb: str, name: str, content: bytes, code: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    out = ["--out", str(tmp_path / "run.toml")] if verb == "import" else []
    result = CliRunner().invoke(command_line(), [verb, str(path), *out])
    assert result.exit_code == 2
    assert f"[{code}]" in result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert sorted(item.name for item in tmp_path.iterdir()) == [name]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("verb", ["check", "plan", "import"])
def test_a_pipe_that_nobody_writes_to_is_not_waited_for(verb: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.json")
    result = CliRunner().invoke(command_line(), [verb, str(tmp_path / "p.json")])
    assert result.exit_code == 2
    assert "not a regular file" in result.stderr


def test_more_steps_than_any_run_has_are_not_gone_through(tmp_path: Path) -> None:
    theirs = tmp_path / "sd_scripts.toml"
    text = (FILES / theirs.name).read_text(encoding="utf-8")
    theirs.write_text(text.replace("max_train_steps = 1500", f"max_train_steps = {10**11}"))
    result = CliRunner().invoke(command_line(), ["check", str(theirs)])
    assert result.exit_code == 1
    assert "[SF101]" in result.output


def test_aliases_of_aliases_are_not_unfolded() -> None:
    with pytest.raises(Unreadable, match="too many keys"):
        read_yaml(ALIASES)


def test_json_with_remarks_and_commas_at_the_end_is_read() -> None:
    text = '{ // remark\n "a": [1, 2,], /* more */\n # and more\n "b": {"c": 1e-4, "d": NaN,},}'
    document = read_json(text)
    assert document.values["a"] == (1, 2)
    assert document.values["b.c"] == 1e-4
    assert document.lines["b.c"] == 4


def test_json_is_read_as_the_standard_library_reads_it() -> None:
    for path in sorted(FILES.glob("*.json")):
        text = path.read_text(encoding="utf-8")
        assert read_json(text).values == flattened(json.loads(text))


def test_numbers_without_a_dot_are_numbers_in_yaml() -> None:
    assert read_yaml("lr: 1e-4\nname: '1e-4'\n").values == {"lr": 1e-4, "name": "1e-4"}


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)
SEEDS = [path for path in sorted(FILES.iterdir()) if path.suffix != ".py"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_values_in_a_onetrainer_file_are_read_or_refused(data: st.DataObject) -> None:
    content = json.loads((FILES / "onetrainer_adaptive.json").read_text(encoding="utf-8"))
    for key in data.draw(st.lists(st.sampled_from(sorted(content)), max_size=4)):
        content[key] = data.draw(JSON_VALUES)
    _read_or_refuse(json.dumps(content), Path("their.json"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_cut_or_garbled_file_is_read_or_refused(data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(SEEDS))
    text = seed.read_text(encoding="utf-8")
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 30)))
    garbage = data.draw(st.text(max_size=8))
    _read_or_refuse(text[:start] + garbage + text[end:], seed)


def _read_or_refuse(text: str, path: Path) -> None:
    folder = Path(data_folder())
    file = folder / path.name
    file.write_text(text, encoding="utf-8", errors="replace")
    try:
        theirs = recognise(file)
        read = readings(theirs, file) if theirs is not None else ()
    except Refused:
        return
    for reading in read:
        assert run_toml(reading.run, path.name)


_FOLDERS: list[str] = []


def data_folder() -> str:
    return _FOLDERS[0]


@pytest.fixture(autouse=True)
def folder_for_files(tmp_path_factory: pytest.TempPathFactory) -> None:
    _FOLDERS[:] = [str(tmp_path_factory.mktemp("garbled"))]
