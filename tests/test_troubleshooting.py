"""docs/operate/troubleshooting.md quotes messages of the code; they are the ones that users see."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "operate" / "troubleshooting.md"
FOLDERS = ("stepwell", "infra", "layers", "lambdas")
OTHERS = ("Address already in use", "database is locked", "database or disk is full", "there is no key")  # of libraries
SHORTEST = 3  # words of what counts as a message; less is a field, a command or a state


def test_every_message_on_the_page_is_one_of_the_code() -> None:
    messages = [part for text in _quoted() for part in _fixed_parts(text)]
    assert len(messages) > 30
    unknown = [part for part in messages if part not in _texts() and not any(other in part for other in OTHERS)]
    assert unknown == []


def test_every_alarm_is_on_the_page() -> None:
    text = PAGE.read_text("utf-8")
    ids = set(re.findall(r'self\._alarm\(\s*"(\w+)"', (ROOT / "infra" / "alarms.py").read_text("utf-8")))
    assert ids
    assert [name for name in ids if f"`{name}`" not in text] == []


def _quoted() -> list[str]:
    """The code spans of the page that read as messages."""
    page = re.sub(r"```.*?```", "", PAGE.read_text("utf-8"), flags=re.S)
    return [text for text in re.findall(r"`([^`\n]+)`", page) if _is_message(text)]


def _is_message(text: str) -> bool:
    is_other = text.startswith(("stepwell ", "serve ", "aws ", "{{", "--", "has("))
    return not is_other and len(re.findall(r"[a-z]+", text)) >= SHORTEST and " " in text


def _fixed_parts(text: str) -> Iterator[str]:
    """What stands between the places of names and numbers."""
    for part in text.split("…"):
        words = part.strip(" ,;:'\"")
        if len(words.split()) > 1:
            yield words


@cache
def _texts() -> str:
    """The texts of the code, with the parts of each f-string in their order."""
    found = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(found)
