"""Words in 简体中文: complete, faithful to keys and glossary, and shown whole on any terminal."""

from __future__ import annotations

import ast
import gettext
import os
import re
import string
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from babel.messages.pofile import read_po
from rich.cells import cell_len
from typer.main import get_group
from typer.testing import CliRunner

from surefoot.check.step_table import sheet_lines
from surefoot.cli import command_line
from surefoot.command_help import help_texts, language_asked
from surefoot.config.load import UNIONS
from surefoot.config.section import key_help
from surefoot.finding import Finding, StepRow, Value
from surefoot.language import _, choose
from surefoot.wording import say

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "surefoot"
PO = PACKAGE / "locale" / "zh_CN" / "LC_MESSAGES" / "surefoot.po"
GLOSSARY = ROOT / "docs" / "glossary.zh-CN.md"
VARIABLES = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG", "SUREFOOT_LANG")

# What the glossary must say, whatever else it says.
TERMS = {
    "learning rate": "学习率",
    "rank": "秩",
    "step": "步",
    "epoch": "轮",
    "caption": "标注",
    "checkpoint": "检查点",
    "base model": "底模",
    "validation": "验证",
    "loss": "损失",
    "optimizer": "优化器",
    "full fine-tuning": "全量微调",
    "adapter": "适配器",
    "magnitude": "幅度",
}
# Keys, files and what stands in backticks: the same in every language.
CODE = re.compile(
    r"`[^`]*`|(?<![\w.])--\w+|\b\w+(?:[._]\w+)+|\b(?:LoRA|DoRA|Adafactor|RMS|UTF-8)\b"
)
HAN = "\u3400-\u9fff"

BROKEN_RUN = """
title = "cat"
[model]
path = "builtin"
[[data.folders]]
path = "builtin"
[optimizer]
clip_treshold = 1.0
lr = "fast"
[train]
steps = 10
"""


@pytest.fixture(autouse=True)
def english_afterwards() -> Iterator[None]:
    yield
    choose("en")


def marked_messages(source: str) -> list[str]:
    """The texts in calls of `_` and `N_`; a call whose text cannot be looked up fails."""
    messages: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in {"_", "N_"}
        ):
            (argument,) = node.args
            assert not isinstance(argument, ast.JoinedStr | ast.BinOp), ast.unparse(node)
            if isinstance(argument, ast.Constant):
                messages.append(str(argument.value))
    return messages


def source_messages() -> list[str]:
    """Every message of the sources, of the commands' help and of the optimizers' keys, once."""
    messages: list[str] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        messages += marked_messages(path.read_text(encoding="utf-8"))
    for section in UNIONS["optimizer"].values():
        messages += key_help(section).values()
    choose("en")
    return list(dict.fromkeys([*messages, *help_texts(get_group(command_line()))]))


def translations() -> dict[str, str]:
    with PO.open("rb") as file:
        return {str(message.id): str(message.string) for message in read_po(file) if message.id}


def placeholders(text: str) -> Counter[tuple[str, str, str]]:
    return Counter(
        (name, form or "", conversion or "")
        for _text, name, form, conversion in string.Formatter().parse(text)
        if name is not None
    )


def code_in(text: str) -> set[str]:
    return set(CODE.findall(re.sub(r"\{\w*[^}]*\}", "{}", text)))


def prose(text: str) -> str:
    """The text without keys, code and placeholders."""
    return CODE.sub(" ", re.sub(r"\{[^}]*\}", " ", text))


def glossary() -> dict[str, str]:
    rows = re.findall(
        r"^\| ([a-z -]+) \| (\S+) \|", GLOSSARY.read_text(encoding="utf-8"), re.MULTILINE
    )
    return {term: chinese for term, chinese in rows if term != "term"}


def run_surefoot(*arguments: str, folder: Path, **environment: str) -> tuple[int, bytes, bytes]:
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-m", "surefoot", *arguments],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(PACKAGE.parent), "COLUMNS": "100", **environment},
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_extraction_joins_texts_and_refuses_what_cannot_be_looked_up() -> None:
    assert marked_messages('_("a " "b"); N_("c"); _(name); other("d")') == ["a b", "c"]
    for glued in ('_(f"step {step}")', '_("step " + step)'):
        with pytest.raises(AssertionError):
            marked_messages(glued)


def test_every_message_has_a_translation_and_no_translation_is_left_over() -> None:
    known = translations()
    messages = source_messages()
    assert len(messages) > 150
    assert [text for text in messages if not known.get(text)] == [], "run scripts/translate"
    assert sorted(known.keys() - set(messages)) == [], "run scripts/translate"


def test_placeholders_of_a_message_are_those_of_its_translation() -> None:
    differing = {
        english: chinese
        for english, chinese in translations().items()
        if placeholders(english) != placeholders(chinese)
    }
    assert differing == {}


def test_keys_and_code_stay_as_they_are() -> None:
    lost = {
        english: sorted(code_in(english) - code_in(chinese))
        for english, chinese in translations().items()
        if not code_in(english) <= code_in(chinese)
    }
    assert lost == {}


def test_compiled_catalog_is_that_of_the_po_file() -> None:
    with PO.with_suffix(".mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    known = translations()
    assert {english: compiled.gettext(english) for english in known} == known
    # The header is the translation of the empty text.
    assert len(compiled._catalog) == len(known) + 1, "run scripts/translate"  # pyright: ignore


def test_glossary_holds_the_terms_that_were_settled() -> None:
    assert glossary().items() >= TERMS.items()


@pytest.mark.parametrize(("term", "chinese"), glossary().items())
def test_translations_follow_the_glossary(term: str, chinese: str) -> None:
    pattern = re.compile(rf"\b{term.replace(' ', '[ -]')}s?\b", re.IGNORECASE)
    straying = {
        english: translated
        for english, translated in translations().items()
        if pattern.search(prose(english)) and chinese not in translated
    }
    assert straying == {}


def test_punctuation_is_full_width_and_latin_words_stand_apart() -> None:
    half_width = re.compile(rf"[{HAN}] ?[,;:!?(]|[,;!?] ?[{HAN}]|\)[{HAN}]")
    crowded = re.compile(rf"[{HAN}][A-Za-z0-9`]|[A-Za-z0-9%`][{HAN}]")
    faulty = {
        english: chinese
        for english, chinese in translations().items()
        if half_width.search(chinese) or crowded.search(chinese)
    }
    assert faulty == {}


def test_every_translation_can_be_shown_on_a_gbk_console() -> None:
    for chinese in translations().values():
        assert chinese.encode("gbk").decode("gbk") == chinese


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"LANGUAGE": "zh_CN", "LC_ALL": "en_US.UTF-8"}, "zh"),
        ({"LANGUAGE": "en", "LC_ALL": "zh_CN.UTF-8"}, "en"),
        ({"LC_ALL": "zh_CN.UTF-8", "LC_MESSAGES": "en_US.UTF-8", "LANG": "en_US.UTF-8"}, "zh"),
        ({"LC_MESSAGES": "zh_CN.UTF-8", "LANG": "en_US.UTF-8"}, "zh"),
        ({"LC_MESSAGES": "en_US.UTF-8", "LANG": "zh_CN.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.GBK"}, "zh"),
        ({"LANG": "zh-Hans"}, "zh"),
        ({"LANG": "C"}, "en"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LC_ALL": "POSIX", "LANG": "zh_CN.UTF-8"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANGUAGE": "", "LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANGUAGE": "fr:zh_CN:en"}, "zh"),
        ({"LANGUAGE": "fr:en:zh_CN"}, "en"),
    ],
)
def test_auto_follows_the_environment_in_the_order_of_gettext(
    environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert choose("auto") == expected
    assert _("learning rate") == "learning rate"
    assert _("optimizer") == {"zh": "优化器", "en": "optimizer"}[expected]


def test_language_chosen_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGUAGE", "zh_CN")
    assert (choose("en"), _("error")) == ("en", "error")
    monkeypatch.setenv("LANGUAGE", "en")
    assert (choose("zh"), _("error")) == ("zh", "错误")


def test_empty_text_stays_empty() -> None:
    choose("zh")
    assert _("") == ""


@pytest.mark.parametrize(
    ("arguments", "variable", "expected"),
    [
        (("--lang", "zh", "--help"), "", "zh"),
        (("--lang=zh", "check", "run.toml"), "", "zh"),
        (("--version", "--lang", "en"), "zh", "en"),
        (("check", "run.toml"), "zh", "zh"),
        (("check", "run.toml"), "", "auto"),
        (("sample", "runs/cat", "--lang", "zh"), "", "auto"),
        (("--lang", "klingon"), "", "auto"),
        (("--lang",), "", "auto"),
    ],
)
def test_language_is_known_before_the_help_is_written(
    arguments: tuple[str, ...], variable: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUREFOOT_LANG", variable)
    assert language_asked(arguments) == expected


def test_names_that_happen_to_be_messages_are_not_translated() -> None:
    choose("zh")
    assert _("error") != "error"
    said = say(Finding("SF034", "error", "", {"file": "error", "detail": ""}))
    assert "error" in said.sentence
    values: dict[str, Value] = {"folder": "steps", "blocking": "model", "reason": ""}
    said = say(Finding("SF041", "error", "folder", values))
    assert {"steps", "model"} <= set(re.findall(r"\w+", said.sentence, re.ASCII))
    assert "Content-Type" not in said.sentence


def test_reasons_that_are_ours_are_translated_and_those_of_others_are_kept() -> None:
    choose("zh")
    ours = say(Finding("SF001", "error", "", {"file": "a.toml", "reason": "file not found"}))
    theirs = say(Finding("SF001", "error", "", {"file": "a.toml", "reason": "Disk on fire"}))
    assert ours.sentence == "无法读取 a.toml：找不到文件"
    assert theirs.sentence == "无法读取 a.toml：Disk on fire"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_columns_of_the_sheet_are_aligned(language: str) -> None:
    choose("zh" if language == "zh" else "en")
    rows = [
        StepRow("lora_up", 133, 410_176, 0.0, 0.04, 576, 1.9e-3, 1.2e-1, 2.76),
        StepRow("magnitude", 1, 25, 0.58, 0.04, 25, 9.6e-4, 6.4e-2, 0.064),
    ]
    lines = sheet_lines(rows)[:3]
    assert ("张量" in lines[0]) == (language == "zh")
    starts = [
        [cell_len(line[: cell.start()]) for cell in re.finditer(r"\S+(?: \S+)*", line)]
        for line in lines
    ]
    assert len(starts[0]) == 7
    assert starts[0] == starts[1] == starts[2]


def test_plan_in_chinese_is_aligned(tmp_path: Path) -> None:
    run_file = tmp_path / "run.toml"
    text = BROKEN_RUN.replace("title =", "name =").replace("clip_treshold = 1.0\nlr = ", "# ")
    run_file.write_text(text, encoding="utf-8")
    shown = CliRunner().invoke(command_line(), ["--lang", "zh", "plan", str(run_file)]).stdout
    lines = shown.split("\n\n")[0].splitlines()
    assert len(lines) == 11
    assert lines[3].startswith("优化器")
    columns = {
        cell_len(line[: line.index("  ")]) + len(re.findall(r"  +", line)[0]) for line in lines
    }
    assert len(columns) == 1


@pytest.mark.parametrize("encoding", ["utf-8", "gbk"])
def test_broken_run_is_explained_in_chinese(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(BROKEN_RUN, encoding="utf-8")
    code, _out, shown = run_surefoot(
        "--lang", "zh", "check", "run.toml", folder=tmp_path, PYTHONIOENCODING=encoding
    )
    words = shown.decode(encoding)
    assert code == 2
    assert "错误[SF006] 缺少 `name`" in words
    assert "是不是想写 `clip_threshold`？" in words
    assert '应为：数字 / "auto"' in words
    assert "错误 4 个，警告 0 个" in words
    assert "Traceback" not in words


def test_sign_that_gbk_lacks_does_not_end_the_run(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(BROKEN_RUN + "\nnote = '\N{CAT}'", encoding="utf-8")
    code, _out, shown = run_surefoot(
        "--lang", "zh", "check", "run.toml", folder=tmp_path, PYTHONIOENCODING="gbk"
    )
    assert code == 2
    assert "note = '?'" in shown.decode("gbk")


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [(("--lang", "zh", "--help"), {}), (("--help",), {"LANG": "zh_CN.UTF-8"})],
)
def test_help_is_in_chinese(
    arguments: tuple[str, ...], environment: dict[str, str], tmp_path: Path
) -> None:
    environment = {"PYTHONIOENCODING": "utf-8", **environment}
    code, out, _err = run_surefoot(*arguments, folder=tmp_path, **environment)
    shown = out.decode()
    assert code == 0
    for words in ("微调扩散模型", "命令", "选项", "[默认：auto]", "显示此帮助并退出。", "退出码："):
        assert words in shown
    assert "Show" not in shown


def test_help_in_english_stays_english_under_a_chinese_locale(tmp_path: Path) -> None:
    code, out, _err = run_surefoot("--lang", "en", "--help", folder=tmp_path, LANG="zh_CN.UTF-8")
    assert code == 0
    assert "Fine-tunes diffusion models" in out.decode()
    assert not re.search(rf"[{HAN}]", out.decode())
