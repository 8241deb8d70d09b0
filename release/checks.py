"""What must hold before a release, and in the wheel."""

from __future__ import annotations

import re
import zipfile
from email.parser import HeaderParser
from pathlib import Path

from release.environments import ReleaseFailed, run

_VERSION = re.compile(r'^__version__ = "(\d+\.\d+\.\d+)"$', re.MULTILINE)
_RELEASED = re.compile(r"^## (\d+\.\d+\.\d+) \((\d{4}-\d\d-\d\d)\)$", re.MULTILINE)
_ADAPTERS = {f"stepwell/aws/deploy/adapter_layers/{architecture}.zip" for architecture in ("arm64", "x86_64")}


def check_version(root: Path) -> str:
    """The version of the package. The changelog must have it as its newest entry, with the date of the release."""
    found = _VERSION.search((root / "stepwell/__init__.py").read_text("utf-8"))
    if found is None:
        raise ReleaseFailed("stepwell/__init__.py has no `__version__` of the form 1.2.3")
    newest = _RELEASED.search((root / "CHANGELOG.md").read_text("utf-8"))
    if newest is None or newest[1] != found[1]:
        described = f"version {newest[1]}" if newest else "no version with a date"
        raise ReleaseFailed(f"the package is version {found[1]}, and the newest entry of CHANGELOG.md is {described}")
    return found[1]


def check_tree(root: Path) -> None:
    changed = run(["git", "-C", root, "status", "--porcelain"]).strip()
    if changed:
        raise ReleaseFailed(f"there are changes that are not committed (--allow-dirty accepts them):\n{changed}")


def check_wheel(wheel: Path, version: str, root: Path) -> None:
    """Checks licence, version, step adapters, and that the wheel has each file of the package and no other."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        information = f"stepwell-{version}.dist-info"
        metadata = HeaderParser().parsestr(archive.read(f"{information}/METADATA").decode())
        if (metadata["Version"], metadata["License-Expression"]) != (version, "Apache-2.0"):
            raise ReleaseFailed(f"the wheel says {metadata['Version']} and {metadata['License-Expression']}")
        if archive.read(f"{information}/licenses/LICENSE") != (root / "LICENSE").read_bytes():
            raise ReleaseFailed("the licence in the wheel is not LICENSE")
    files = {name for name in names if not name.startswith(information)}
    wanted = _tracked(root) | _ADAPTERS
    if files != wanted:
        missing, surplus = sorted(wanted - files)[:5], sorted(files - wanted)[:5]
        raise ReleaseFailed(f"the wheel lacks {missing or 'nothing'}, and has {surplus or 'nothing'} besides")


def _tracked(root: Path) -> set[str]:
    """The files of the package that are in Git, without Go's tests. Folders that are links count as their content."""
    found = set()
    for name in run(["git", "-C", root, "ls-files", "stepwell"]).splitlines():
        path = root / name
        inside = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
        found |= {file.relative_to(root).as_posix() for file in inside}
    return {name for name in found if not name.endswith(("_test.go", ".pyc"))}
