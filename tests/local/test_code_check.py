"""A server that has lost needed code does not start, and its error names the functions and the fix. Code that can be
restored is restored."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from stepwell.project.code_copies import remove
from tests.servers import Server, api, cli, dev, eventually, new_key, program, serve, write_function


def function(folder: Path, text: str = "1", **steps: object) -> Path:
    write_function(folder, a=program("cat said"), **steps)  # type: ignore[arg-type]
    (folder / "said").write_text(text)
    return folder


@pytest.fixture
def nothing(tmp_path: Path) -> Path:
    (tmp_path / "nothing").mkdir()
    return tmp_path / "nothing"


def code_of(db: Path) -> list[Path]:
    return [path for path in (db.parent / f".{db.name}.code").iterdir() if len(path.name) == 64]


def lose(db: Path) -> None:
    """Removes the folder of code, including the pushed archives."""
    for path in code_of(db):
        remove(path)
    shutil.rmtree(db.parent / f".{db.name}.code")


def change(db: Path) -> None:
    for path in code_of(db):
        (path / "said").chmod(0o644)
        (path / "said").write_text("changed")
    for archive in (db.parent / f".{db.name}.code").glob("*.zip"):
        archive.unlink()


def empty(db: Path) -> None:
    for path in code_of(db):
        remove(path)
        path.mkdir()
    for archive in (db.parent / f".{db.name}.code").glob("*.zip"):
        archive.unlink()


LOSSES = [lose, change, empty]


def push(folder: Path, server: Server, key: str) -> None:
    assert cli("push", str(folder), STEPWELL_URL=server.url, STEPWELL_KEY=key).returncode == 0


@pytest.fixture(scope="module")
def pushed_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a database to which a function was pushed, and an API key."""
    folder = tmp_path_factory.mktemp("pushed")
    (folder / "nothing").mkdir()
    key = new_key(folder / "db")
    with serve(folder / "nothing", folder / "db") as server:
        push(function(tmp_path_factory.mktemp("source") / "f"), server, key)
        server.stop()
    return folder, key


@pytest.fixture
def pushed(pushed_once: tuple[Path, str], tmp_path: Path) -> tuple[Path, str]:
    """A copy of that database, and the API key."""
    folder, key = pushed_once
    shutil.copytree(folder, tmp_path / "pushed", symlinks=True)
    return tmp_path / "pushed" / "db", key


def refused(*arguments: str | Path) -> str:
    done = cli(*map(str, arguments), "--port", "0")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("command", ["serve", "dev"])
def test_a_server_without_pushed_code_does_not_start(
    pushed: tuple[Path, str], nothing: Path, loss: Callable[[Path], None], command: str
) -> None:
    db, _ = pushed
    (code,) = code_of(db)
    loss(db)
    message = refused(command, nothing, "--db", db)
    assert "f version 1 (live), step a" in message
    assert str(code) in message
    for cure in ("stepwell restore", "--allow-missing-code", "the folder that the functions came from"):
        assert cure in message


def test_code_that_only_an_open_run_needs_is_missed(tmp_path: Path, nothing: Path) -> None:
    db, folder = tmp_path / "db", tmp_path / "f"
    key = new_key(db)
    later = program("cat said", after=[{"step": "a", "wait": "1h"}])
    with serve(function(folder, b=later), db) as server, api(server, key) as http:
        event = http.send()
        eventually(lambda: http.runs_of(event)[0]["steps"]["b"]["status"] == "waiting")
        server.stop()
    lose(db)
    function(folder, "2", b=later)
    message = refused("serve", folder, "--db", db)
    assert "f version 1 (live and used by open runs), step a" in message
    assert "step b" in message


def test_lost_code_is_restored_from_the_functions_folder(tmp_path: Path, nothing: Path) -> None:
    """Also if that folder was moved, as to another machine."""
    db, folder = tmp_path / "db", function(tmp_path / "f")
    key = new_key(db)
    with serve(nothing, db) as server:
        push(folder, server, key)
        server.stop()
    lose(db)
    with serve(folder.rename(tmp_path / "moved"), db) as server, api(server, key) as http:
        assert http.ended(http.send())["output"] == {"a": 1}


def test_a_lost_version_that_the_start_replaces_is_not_needed(tmp_path: Path) -> None:
    """The folder of code was deleted, and the function changed since, as may happen in development."""
    db, folder = tmp_path / "db", function(tmp_path / "f")
    with dev(folder, db) as server:
        server.stop()
    lose(db)
    function(folder, "2")
    with dev(folder, db) as server, api(server) as http:
        assert http.ended(http.send())["output"] == {"a": 2}
        server.stop()
    lose(db)
    shutil.rmtree(folder)
    folder.mkdir()
    with dev(folder, db) as server, api(server) as http:
        assert http.get("/v1/functions")["data"] == []


def test_code_of_unneeded_versions_may_be_lost(tmp_path: Path, nothing: Path) -> None:
    db, folder = tmp_path / "db", tmp_path / "f"
    key = new_key(db)
    with serve(nothing, db) as server:
        push(function(folder), server, key)
        (old,) = code_of(db)
        push(function(folder, "2"), server, key)
        server.stop()
    remove(old)
    with serve(nothing, db) as server, api(server, key) as http:
        assert http.ended(http.send())["output"] == {"a": 2}


def test_allow_missing_code_starts_the_server_and_a_push_repairs_it(
    pushed: tuple[Path, str], tmp_path: Path, nothing: Path
) -> None:
    (db, key), folder = pushed, tmp_path / "f"
    lose(db)
    with serve(nothing, db, "--allow-missing-code") as server, api(server, key) as http:
        assert any(line["level"] == "error" and "f version 1 (live)" in line["message"] for line in server.lines)
        run = http.ended(http.send())
        assert (run["status"], run["steps"]["a"]["error"]["kind"]) == ("failed", "code_changed")
        push(function(folder, "2"), server, key)
        assert http.ended(http.send())["output"] == {"a": 2}
