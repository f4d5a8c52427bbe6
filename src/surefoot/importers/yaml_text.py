"""YAML, read by PyYAML's safe loader only, each key with its line."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import cast

import yaml

from surefoot.importers.document import DEEPEST, MOST_KEYS, Document, Unreadable, flattened
from surefoot.language import N_

# YAML 1.1 takes 1e-4 for text, since it has no dot; people mean a number, and trainers read one.
_EXPONENT = re.compile(r"[-+]?\d+(?:\.\d*)?[eE][-+]?\d+")


def read_yaml(text: str) -> Document:
    """Reads a YAML mapping.

    Raises:
        Unreadable: With the line of what is wrong.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        reader = _Reader(loader)
        value = None if node is None else reader.value(node, "", 0)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise Unreadable(error.problem or N_("not YAML"), line) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise Unreadable(str(error).partition("\n")[0]) from None
    except RecursionError:
        raise Unreadable(N_("nested too deep")) from None
    return Document("yaml", flattened(value), reader.lines)


_PLAIN_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value")
)


class _Reader:
    """Nodes to values. An alias is followed anew each time, so what is made is counted."""

    def __init__(self, loader: yaml.SafeLoader) -> None:
        self._loader = loader
        self._made = 0
        self.lines: dict[str, int] = {}

    def value(self, node: yaml.Node, path: str, depth: int) -> object:
        self._made += 1
        if self._made > MOST_KEYS:
            raise Unreadable(N_("too many keys"))
        if depth > DEEPEST:
            raise Unreadable(N_("nested too deep"), self._line(node))
        if path:
            self.lines.setdefault(path, self._line(node))
        if node.tag not in _PLAIN_TAGS:
            raise Unreadable(N_("a tag that only a program can make sense of"), self._line(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [
                self.value(item, f"{path}.{number}", depth + 1)
                for number, item in enumerate(node.value)
            ]
        make = cast(
            Callable[[yaml.Node], object],
            self._loader.construct_object,  # pyright: ignore[reportUnknownMemberType]
        )
        value = make(node)
        plain = isinstance(node, yaml.ScalarNode) and node.style is None
        if plain and isinstance(value, str) and _EXPONENT.fullmatch(value):
            return float(value)
        return value

    @staticmethod
    def _line(node: yaml.Node) -> int:
        return node.start_mark.line + 1

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, object]:
        self._loader.flatten_mapping(node)
        table: dict[str, object] = {}
        for key_node, value_node in node.value:
            key = str(self.value(key_node, "", depth + 1))
            inner = f"{path}.{key}" if path else key
            self.lines[inner] = self._line(key_node)
            table[key] = self.value(value_node, inner, depth + 1)
        return table
