"""Folders beside functions that hold what belongs to them: event types, rules of webhooks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from stepwell.project.search import Tree, is_file, is_folder, is_function


def folders_called(name: str, paths: Iterable[Path]) -> set[Path]:
    """The folders of this name at or below each path that are no functions, and none that is in another; and of a
    function's folder, the one beside it too."""
    tree = Tree.of(paths)
    beside = Tree(path.parent for path in tree if is_file(path))
    folders = [*tree.folders, *beside.folders]
    found = {folder.path for folder in folders if folder.path.name == name and not folder.is_function}
    for path in tree:
        top = path.parent if is_file(path) else path
        if is_function(top):
            found |= {folder for folder in (top / name, top.absolute().parent / name) if is_folder(folder)}
    found = {folder for folder in found if not is_function(folder)}
    return {folder for folder in found if not any(other in folder.parents for other in found)}
