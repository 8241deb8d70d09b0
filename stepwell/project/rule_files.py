"""Finds the files in folders of one name, such as the rules of webhooks and the sources, beside functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from stepwell.project.folders import folders_named
from stepwell.project.leftovers import is_leftover
from stepwell.project.search import Tree, is_function

_SUFFIXES = frozenset({".json", ".yaml", ".yml"})


def rule_files(folder_name: str, tree: Tree) -> Iterator[Path]:
    """The JSON and YAML files in the folders with this name. Such a folder deeper in a function's code is not read."""
    seen: set[Path] = set()  # a folder may be found by a relative and by an absolute path
    for folder in sorted(folders_named(folder_name, tree)):
        if _is_code(folder, tree) or folder.resolve() in seen:
            continue
        seen.add(folder.resolve())
        for file in sorted(folder.iterdir()):
            if file.name.startswith(".") or is_leftover(file.name):
                continue
            if file.suffix in _SUFFIXES and file.is_file():
                yield file


def _is_code(folder: Path, paths: Iterable[Path]) -> bool:
    """Whether the folder is part of a function's code, that is, deeper than beside the definition."""
    tops = {path.parent if path.is_file() else path for path in paths}
    above = [parent for parent in folder.parents[1:] if any(top == parent or top in parent.parents for top in tops)]
    return any(map(is_function, above))
