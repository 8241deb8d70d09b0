"""The links of a Markdown page, and the anchors of its headings, as GitHub and the site build them."""

from __future__ import annotations

import re
from collections.abc import Callable

_FENCE = re.compile(r"^\s*(```+|~~~+)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$")
_ANCHOR = re.compile(r"<a (?:id|name)=\"([^\"]+)\">")


def prose(text: str) -> str:
    """The page with an empty line for each line of a code block."""
    lines, closes = [], ""
    for line in text.splitlines():
        found = _FENCE.match(line)
        if not closes and not found:
            lines.append(line)
            continue
        lines.append("")
        if found and (not closes or line.strip() == closes):
            closes = "" if closes else found[1]
    return "\n".join(lines)


def targets(text: str) -> list[tuple[int, str]]:
    """The target of each link, with the number of its line. Images are links, too."""
    text = prose(text)
    return [(text.count("\n", 0, found.start()) + 1, found[1]) for found in _LINK.finditer(text)]


def replace_targets(text: str, target: Callable[[str], str]) -> str:
    """The page with `target(old)` as the target of each link outside code blocks."""
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(prose(text).splitlines()):
        if line:
            lines[number] = _LINK.sub(lambda found: f"]({target(found[1])})", lines[number])
    return "".join(lines)


def is_external(target: str) -> bool:
    return bool(re.match(r"[a-z][a-z0-9+.-]*:", target))


def anchors(text: str) -> set[str]:
    """The ids that a link to this page may end with."""
    found, text = set(_ANCHOR.findall(text)), prose(text)
    for line in text.splitlines():
        if heading := _HEADING.match(line):
            slug = first = slugify(heading[1])
            number = 0
            while slug in found:
                number += 1
                slug = f"{first}-{number}"
            found.add(slug)
    return found


def slugify(heading: str, separator: str = "-") -> str:
    """The id of a heading, as GitHub makes it."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
    return re.sub(r"[^\w\s-]", "", plain).strip().lower().replace(" ", separator)
