"""Suggests a cure for a line that YAML reads differently than the author meant, or cannot read.

Every cure is tested before it is suggested: the text with the cured line is parsed again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

from stepwell.project.source import SourceError

_LARGEST = 64 * 1024  # characters of a text; it is parsed again for each cure that is tried
_MOST_TRIED = 12
_HEAD = r"\s*(?:-\s+)*"
_KEY = r"[\w$.-]+:\s+"
_BLOCK = re.compile(rf"(?P<head>{_HEAD}(?:{_KEY})?)(?P<value>\S.*?)\s*\Z")
_VALUE = r"\{\{.*?\}\}[^,}\]]*?|[\[{][^\[\]{}]*[\]}][^,{}\[\]]+?|[^\s,{}\[\]][^,{}\[\]]*?"
_FLOW = re.compile(rf"(?P<head>[{{\[,]\s*(?:{_KEY})?)(?P<value>{_VALUE})(?=\s*[,}}\]])")
_IS_FLOW = re.compile(r"\[|\{(?!\{)")
_GOES_ON = re.compile(r"[\]}][^\]},]+\Z")  # after a list or an object, as `[1, 2] == data.x` does
_COMMENT = re.compile(r"\s+#.*\Z")
_NO_SPACE = re.compile(rf"(?P<head>{_HEAD}[\w$-]+):(?P<value>[^\s:/].*)\Z")


def with_hint(text: str, error: SourceError, parse: Callable[[str], object]) -> SourceError:
    """The error, with a cure for the line if one works."""
    if len(text) > _LARGEST:
        return error
    lines, last = text.split("\n"), error.line - 1
    cures = [(last, *cure) for cure in _cures(lines[last])] if last < len(lines) else []
    cures += [(last - 1, *cure) for cure in _spaces(lines[last - 1])] if last else []
    for number, cure, line in cures[:_MOST_TRIED]:
        if _is_read("\n".join([*lines[:number], line, *lines[number + 1 :]]), last, parse):
            column = error.column if number == last else 1
            return SourceError(error.problem, number + 1, column, cure)
    return error


def _is_read(text: str, number: int, parse: Callable[[str], object]) -> bool:
    """Whether the text has no error up to and including this line."""
    try:
        parse(text)
    except SourceError as error:
        return error.line > number + 1
    return True


def _cures(line: str) -> Iterator[tuple[str, str]]:
    """Possible cures of a line: each in words, with the cured line."""
    indent = line[: len(line) - len(line.lstrip())]
    if "\t" in indent:
        yield "YAML is indented with spaces; replace the tab", indent.replace("\t", "  ") + line.lstrip()
    yield from _spaces(line)
    block = _BLOCK.match(line)
    found = [block]
    if block is not None and _IS_FLOW.match(block["value"]):
        found = [*_FLOW.finditer(line), *([block] if _GOES_ON.search(block["value"]) else [])]
    for match in found:
        if match is not None and not match["value"].startswith("!!"):
            yield from _quoted(line, match)


def _quoted(line: str, match: re.Match[str]) -> Iterator[tuple[str, str]]:
    start = match.start("value")
    for value in dict.fromkeys((_COMMENT.sub("", match["value"]), match["value"])):
        quoted = in_quotes(value)
        yield f"put it in quotes, {quoted}", line[:start] + quoted + line[start + len(value) :]


def _spaces(line: str) -> Iterator[tuple[str, str]]:
    if match := _NO_SPACE.match(line):
        name = match["head"].strip(" -")
        yield f"write a space after the `:` of `{name}`", f"{match['head']}: {match['value']}"


def in_quotes(text: str) -> str:
    """The text in quotes, so that YAML reads exactly this text."""
    if '"' not in text and "\\" not in text:
        return f'"{text}"'
    return f"'{text}'" if "'" not in text else json.dumps(text, ensure_ascii=False)
