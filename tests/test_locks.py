"""What is deployed, and what CI uses, has exact versions with hashes, from public places."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from locks.lock import LOCKS, ROOT, RUNTIME_HAS, Lock

_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ ;\\]+)", re.MULTILINE)
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
_ADDRESS = re.compile(r"https?://|file:|--(extra-)?index-url|--find-links|@ ")


def names(text: str) -> set[str]:
    """Names of requirements as PyPI compares them (PEP 503)."""
    found = re.findall(r"^([A-Za-z0-9][A-Za-z0-9._-]*)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower() for name in found}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.path)
def test_each_version_of_a_lock_file_is_exact_and_has_hashes(lock: Lock) -> None:
    text = (ROOT / lock.path).read_text("utf-8")
    packages = re.split(r"\n(?=[a-z0-9])", text)[1:]
    assert packages
    for package in packages:
        assert _PIN.match(package), package
        assert _HASH.search(package), package


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.path)
def test_a_lock_file_names_no_address(lock: Lock) -> None:
    assert not _ADDRESS.search((ROOT / lock.path).read_text("utf-8"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.path)
def test_a_lock_file_has_all_that_its_sources_require(lock: Lock) -> None:
    wanted: set[str] = set()
    for source in lock.sources:
        text = (ROOT / source).read_text("utf-8")
        wanted |= _of_pyproject(text) if source.endswith(".toml") else names(text)
    assert wanted - set(RUNTIME_HAS) <= names((ROOT / lock.path).read_text("utf-8"))


def test_all_lock_files_are_written_by_the_command() -> None:
    hashed = {path for path in ROOT.rglob("*.txt") if "--hash=sha256:" in _head(path) and not _is_made(path)}
    assert {path.relative_to(ROOT).as_posix() for path in hashed} == {lock.path for lock in LOCKS}


def _of_pyproject(text: str) -> set[str]:
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"]
    requirements = [*project["dependencies"], *(line for lines in extras.values() for line in lines)]
    return names("\n".join(requirements)) - {"stepwell", "uvloop"}


def _head(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(2000)


def _is_made(path: Path) -> bool:
    return bool({".venv", "node_modules", "build", "dist"} & set(path.relative_to(ROOT).parts))
