"""Reads definitions written in YAML, with the line and column of every value.

A YAML text means what the same text would mean as JSON. Features that only YAML has (tags, types, merging) are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.events import ScalarEvent
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from stepwell.core.definition.problems import Pointer
from stepwell.project.source import DEEPEST, EMPTY, HALF_A_CHARACTER, TOO_DEEP, Source, SourceError, is_whole
from stepwell.project.yaml_hints import with_hint

MOST_VALUES = 200_000


def parse_yaml(text: str) -> Source:
    """Reads one YAML 1.2 document with JSON's types: `on`, `yes` and dates are text. Raises SourceError."""
    try:
        return _parse(text)
    except SourceError as error:
        raise with_hint(text, error, _parse) from None


def _parse(text: str) -> Source:
    try:
        node = _Composer(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise SourceError(f"is not valid YAML: {error.problem or error.context}", line, column) from None
    except ReaderError as error:
        raise SourceError(*_unreadable(text, error)) from None
    if node is None:
        raise SourceError(EMPTY, 1, 1)
    return _Plain().source(node)


def _unreadable(text: str, error: ReaderError) -> tuple[str, int, int]:
    before = text[: error.position]
    character = f"U+{ord(text[error.position]):04X}"
    message = f"contains the character {character}, which YAML does not allow; remove it"
    return message, before.count("\n") + 1, error.position - before.rfind("\n")


class _Resolver(BaseResolver):
    """The plain scalars of YAML 1.2's core schema. (YAML 1.1 reads `on`, `off`, `yes` and `no` as booleans.)"""


for _tag, _first, _form in (
    ("null", ["~", "n", "N", ""], r"~|null|Null|NULL|"),
    ("bool", list("tTfF"), r"true|True|TRUE|false|False|FALSE"),
    ("int", list("-+0123456789"), r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
    ("float", list("-+.0123456789"), r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"),
    ("float", list("-+."), r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"),
):
    _Resolver.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_form})\Z"), _first)


class _Composer(Reader, Scanner, Parser, Composer, _Resolver):
    """PyYAML's composer with a limit on depth, because it builds nested values recursively."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        _Resolver.__init__(self)
        self.depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        self.depth += 1
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if self.depth > DEEPEST:
            raise _at(event.start_mark, TOO_DEEP)
        if getattr(event, "tag", None) == "!":  # PyYAML drops this tag, so `! response.ok` would lose the `!`
            raise _tagged(event.start_mark, "!")
        node: Node | None = super().compose_node(parent, index)
        if isinstance(event, ScalarEvent) and event.anchor and event.implicit[0] and not event.value:  # `if: &x`
            raise _at(event.start_mark, f"has the anchor `&{event.anchor}` and no value", "remove it")
        self.depth -= 1
        return node


def _at(mark: Any, problem: str, cure: str = "") -> SourceError:
    return SourceError(problem, mark.line + 1, mark.column + 1, cure)


def _tagged(mark: Any, tag: str) -> SourceError:
    return _at(mark, f"has the tag `{tag[:100]}`, because YAML reads a leading `!` as a tag", "remove it")


def _integer(text: str) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text[2:] if base != 10 else text, base)


def _float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


_SCALARS: dict[str, Callable[[str], Any]] = {
    "tag:yaml.org,2002:str": str,
    "tag:yaml.org,2002:null": lambda _: None,
    "tag:yaml.org,2002:bool": lambda text: {"true": True, "false": False}[text.lower()],
    "tag:yaml.org,2002:int": _integer,
    "tag:yaml.org,2002:float": _float,
}


class _Plain:
    """Turns YAML nodes into plain data. Aliases are copied, and each copy counts towards the limit of values."""

    def __init__(self) -> None:
        self.places: dict[Pointer, tuple[int, int]] = {}
        self.written: dict[Pointer, str] = {}
        self.left = MOST_VALUES

    def source(self, root: Node) -> Source:
        self.places[()] = (root.start_mark.line + 1, root.start_mark.column + 1)
        return Source(self.value(root, ()), self.places, self.written)

    def value(self, node: Node, pointer: Pointer) -> Any:
        self.left -= 1
        if self.left < 0:
            raise _at(node.start_mark, f"has more than {MOST_VALUES:,} values, counting aliases; shorten it")
        if len(pointer) > DEEPEST:
            raise _at(node.start_mark, TOO_DEEP)
        if isinstance(node, MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self.mapping(node, pointer)
        if isinstance(node, SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.item(item, (*pointer, i)) for i, item in enumerate(node.value)]
        if isinstance(node, ScalarNode) and node.tag in _SCALARS:
            return self.scalar(node, pointer)
        raise _tagged(node.start_mark, node.tag)

    def mapping(self, node: MappingNode, pointer: Pointer) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            mark, key = key_node.start_mark, key_node.value
            if not isinstance(key_node, ScalarNode):
                raise _at(mark, "has a key that is not text", "write it in quotes")
            if not is_whole(key):
                raise _at(mark, HALF_A_CHARACTER)
            if key in result:
                raise _at(mark, f"has the key {key[:100]!r} twice; keep one of them")
            self.places[(*pointer, key)] = (mark.line + 1, mark.column + 1)
            result[key] = self.value(value_node, (*pointer, key))
        return result

    def item(self, node: Node, pointer: Pointer) -> Any:
        self.places[pointer] = (node.start_mark.line + 1, node.start_mark.column + 1)
        return self.value(node, pointer)

    def scalar(self, node: ScalarNode, pointer: Pointer) -> Any:
        if not is_whole(node.value):
            raise _at(node.start_mark, HALF_A_CHARACTER)
        if node.tag != "tag:yaml.org,2002:str":
            self.written[pointer] = node.value
        try:
            return _SCALARS[node.tag](node.value)
        except (ValueError, KeyError):
            raise _at(node.start_mark, f"{node.value[:60]!r} does not match its tag, or is too long") from None
