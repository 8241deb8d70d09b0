"""Functions that were loaded before: when they are loaded again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stepwell.project.known import KnownFunctions
from stepwell.project.load import LoadedFunction

DEFINITION = """{"id": "f", "triggers": [{"event": "go"}], "steps": {
    "a": {"path": "file://./steps/a", "runtime": {"type": "lambda", "command": ["sh", "main.sh"]}},
    "b": {"path": "file://./b.sh"}}}"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "f/steps/real").mkdir(parents=True)
    (tmp_path / "f/stepwell.json").write_text(DEFINITION)
    (tmp_path / "f/steps/real/main.sh").write_text("echo 1")
    (tmp_path / "f/steps/a").symlink_to("real")
    (tmp_path / "f/b.sh").write_text("echo 1")
    return tmp_path / "f"


@pytest.fixture
def known() -> KnownFunctions:
    return KnownFunctions(lambda: time.time_ns() + 1_000_000_000)  # all files were written long ago


def loaded(known: KnownFunctions, folder: Path) -> LoadedFunction:
    functions, errors = known.load_all([folder])
    assert errors == []
    (function,) = functions
    return function


def test_an_unchanged_function_is_not_loaded_again(known: KnownFunctions, folder: Path) -> None:
    first = loaded(known, folder)
    assert loaded(known, folder) is first
    (folder.parent / "other").mkdir()
    assert loaded(known, folder) is first


def test_a_function_that_was_just_written_is_loaded_again(folder: Path) -> None:
    known = KnownFunctions()
    assert loaded(known, folder) is not loaded(known, folder)


def relink(folder: Path) -> None:
    (folder / "steps/other").mkdir()
    (folder / "steps/other/main.sh").write_text("echo 2")
    (folder / "steps/a").unlink()
    (folder / "steps/a").symlink_to("other")


@pytest.mark.parametrize(
    "change",
    [
        lambda f: (f / "stepwell.json").write_text(DEFINITION.replace("go", "on")),
        lambda f: (f / "steps/real/main.sh").write_text("echo 2"),
        lambda f: (f / "steps/real/main.sh").chmod(0o755),
        lambda f: (f / "steps/real/more").write_text("1"),
        lambda f: (f / "steps/real/.env").write_text("A=1"),
        lambda f: (f / "b.sh").write_text("echo 2"),
        lambda f: (f / ".stepwellignore").write_text("more"),
        relink,
    ],
    ids=["definition", "code", "mode", "new file", ".env", "single file", "ignored", "link"],
)
def test_a_changed_function_is_loaded_again(
    known: KnownFunctions, folder: Path, change: Callable[[Path], None]
) -> None:
    first = loaded(known, folder)
    change(folder)
    second = loaded(known, folder)
    assert second is not first
    assert loaded(known, folder) is second


def test_a_function_is_in_service_until_it_is_changed(known: KnownFunctions, folder: Path) -> None:
    first = loaded(known, folder)
    assert not known.is_in_service(first)
    known.put_in_service(first)
    assert known.is_in_service(loaded(known, folder))
    (folder / "b.sh").write_text("echo 2")
    assert not known.is_in_service(loaded(known, folder))


def test_a_function_that_was_removed_and_added_is_not_in_service(known: KnownFunctions, folder: Path) -> None:
    known.put_in_service(loaded(known, folder))
    known.load_all([])
    assert not known.is_in_service(loaded(known, folder))


def test_of_two_functions_with_the_same_id_the_last_is_in_service(known: KnownFunctions, folder: Path) -> None:
    later = folder.parent / "later"
    later.mkdir()
    (later / "stepwell.json").write_text('{"id": "f", "triggers": [{"event": "go"}], "steps": {}}')
    (later / "main.sh").write_text("echo 1")
    first = loaded(known, folder)
    known.put_in_service(first)
    known.put_in_service(loaded(known, later))
    assert not known.is_in_service(first)
