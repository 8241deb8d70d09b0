"""Hooks of MkDocs. Files of the repository that pages link to become pages of the site, below `repository/`.

A page of docs/ links to `../../examples/README.md` as GitHub expects it. MkDocs knows only files below docs/. The site
therefore gets a page for each such file: Markdown unchanged, a folder as its README or a list, other text as a code
block. Tables get the names of their columns in each cell, for narrow screens.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))
from links import is_external, replace_targets, targets

ROOT = Path(__file__).parents[2]
PREFIX = "repository/"
_TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)
_sources: dict[str, Path] = {}  # the file that each added page is made of


def on_files(files: Files, config: Any) -> Files:
    """Adds a page for each file outside docs/ that a page links to, and for those that such a page links to."""
    waiting = [path for file in files.documentation_pages() for path in _outside(Path(file.abs_src_path))]
    _sources.clear()
    while waiting:
        path = waiting.pop()
        if _page_name(path) in _sources:
            continue
        _sources[_page_name(path)] = path
        files.append(File.generated(config, _page_name(path), content=_content(path)))
        if path.suffix == ".md":
            waiting += _outside(path)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page with links to the pages of the site."""
    uri = page.file.src_uri
    source = _source(uri)

    def target(link: str) -> str:
        path, _, anchor = link.partition("#")
        if is_external(link) or not path:
            return link
        name = _page_name(_resolve(source, path))
        return os.path.relpath(name, PurePosixPath(uri).parent) + (f"#{anchor}" if anchor else "")

    return replace_targets(markdown, target)


def on_page_content(html: str, **_: Any) -> str:
    """The page with tables that style.css can show as a list of rows where the screen is narrow."""
    return _TABLE.sub(lambda found: _labelled(found[0]), html)


def _labelled(table: str) -> str:
    """The table with the name of the column in each cell, and names in the first cells that do not break."""
    columns = [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<th[^>]*>(.*?)</th>", table, re.DOTALL)]

    def row(found: re.Match[str]) -> str:
        first, *cells = found[0].split("<td")[1:]
        first = re.sub(r"<code>([^<\s]+)</code>", r'<code class="name">\1</code>', first)
        named = zip(columns[1:], cells, strict=True)
        return f"<tr>\n<td{first}" + "".join(f'<td data-column="{column}"{cell}' for column, cell in named)

    return re.sub(r"<tr>\s*<td.*?</tr>", row, table, flags=re.DOTALL)


def _source(uri: str) -> Path:
    """The file in the repository that a page is made of."""
    return _sources.get(uri, ROOT / "docs" / uri)


def _outside(page: Path) -> list[Path]:
    """The files outside docs/ that a page links to."""
    links = [link.partition("#")[0] for _, link in targets(page.read_text("utf-8")) if not is_external(link)]
    paths = [_resolve(page, link) for link in links if link]
    return [path for path in paths if path.exists() and not path.is_relative_to(ROOT / "docs")]


def _resolve(page: Path, link: str) -> Path:
    """The file that a link names; for a folder with a README, the README."""
    path = Path(os.path.normpath(page.parent / link))
    return path / "README.md" if (path / "README.md").is_file() else path


def _page_name(path: Path) -> str:
    if path.is_relative_to(ROOT / "docs"):
        return path.relative_to(ROOT / "docs").as_posix()
    name = path.relative_to(ROOT).as_posix().replace("/.", "/").removeprefix(".")  # MkDocs leaves out hidden files
    return PREFIX + (name if name.endswith(".md") else f"{name}.md")


def _content(path: Path) -> str:
    name = path.relative_to(ROOT).as_posix()
    if path.suffix == ".md":
        return path.read_text("utf-8")
    head = f"---\nsearch:\n  exclude: true\n---\n\n# `{name}`\n\n"
    if path.is_dir():
        return head + "\n".join(f"- `{item.name}`" for item in sorted(path.iterdir())) + "\n"
    language = {".py": "python", ".json": "json", ".yaml": "yaml", ".toml": "toml", ".js": "js"}.get(path.suffix, "")
    return f"{head}~~~~{language}\n{path.read_text('utf-8')}\n~~~~\n"
