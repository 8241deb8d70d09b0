"""Finds the folders beside functions that hold event types (`schemas`), sources, and rules of webhooks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from stepwell.project.search import Tree, is_file, is_folder, is_function


def folders_named(name: str, paths: Iterable[Path]) -> set[Path]:
    """The folders with this name at or below each path. If a path is a function's folder, also the one beside it.

    Leaves out folders that are functions themselves, and folders inside another folder that is found.
    """
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
