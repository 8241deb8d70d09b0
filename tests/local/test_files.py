"""Only the server's user can read the server's files: the database, SQLite's files beside it, and the code of steps."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepwell.local.database.keys import KeyStore
from stepwell.local.database.lock import exclusive
from stepwell.local.database.schema import connect
from tests.servers import api, cli, dev, eventually, new_key, program, serve, write_function

OTHERS = 0o077


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """The umask of the shell must not hide what Stepwell leaves open."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def readable_by_others(folder: Path) -> list[str]:
    """Files that other users can reach; nothing below a folder that is closed to them."""
    found = []
    for entry in folder.iterdir():
        if mode(entry) & OTHERS:
            found.append(entry.name)
            if entry.is_dir():
                found += readable_by_others(entry)
    return sorted(found)


def test_all_files_of_a_server_are_private(tmp_path: Path) -> None:
    home = tmp_path / "home"
    functions = write_function(tmp_path / "f", a=program("cat main.sh 2> /dev/null; echo 1"))
    key = new_key(home / "db")
    with serve(functions, home / "db") as server, api(server, key) as http:
        http.ended(http.send())
        names = {path.name for path in home.iterdir()}
        assert {"db", "db-wal", "db-shm", "db.lock", ".db.code"} <= names
        assert readable_by_others(home) == []
        assert mode(home) == 0o700
    assert mode(home / ".db.code") == 0o700


def test_the_folder_made_by_dev_is_private(tmp_path: Path) -> None:
    with dev(write_function(tmp_path / "f"), tmp_path / ".stepwell" / "stepwell.db"):
        assert readable_by_others(tmp_path / ".stepwell") == []
        assert mode(tmp_path / ".stepwell") == 0o700


def test_a_new_database_is_never_readable_by_others(tmp_path: Path) -> None:
    db = tmp_path / "a" / "db"
    assert cli("keys", "create", "--db", str(db)).returncode == 0
    assert (mode(db.parent), mode(db)) == (0o700, 0o600)


def test_a_file_is_created_with_its_mode(tmp_path: Path) -> None:
    connection = connect(tmp_path / "db")
    assert mode(tmp_path / "db") == 0o600
    connection.execute("CREATE TABLE t (x)")
    assert {mode(tmp_path / name) for name in ("db-wal", "db-shm")} == {0o600}
    connection.close()
    with exclusive(tmp_path / "db"):
        assert mode(tmp_path / "db.lock") == 0o600


def test_a_database_behind_a_link_is_private(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "db").symlink_to(tmp_path / "disk" / "real")
    KeyStore(tmp_path / "db").close()
    assert mode(tmp_path / "disk" / "real") == 0o600


def test_readable_files_are_made_private_at_the_start_with_a_warning(tmp_path: Path) -> None:
    home = tmp_path / ".stepwell"
    home.mkdir()
    functions, db = write_function(tmp_path / "f"), home / "db"
    key = new_key(db)
    with serve(functions, db) as server:
        assert server.stop() == 0
    opened = (home, db, home / "db.lock", home / ".db.code")
    for path in opened:
        path.chmod(mode(path) | 0o055)
    with serve(functions, db) as server, api(server, key) as http:
        warnings = [line["message"] for line in server.lines if line["level"] == "warning"]
        for path in opened:
            assert any(str(path) in warning and "others" in warning for warning in warnings), (path, warnings)
        assert readable_by_others(home) == []
        assert mode(home) == 0o700
        http.ended(http.send())
    with serve(functions, db) as server:
        assert not [line for line in server.lines if "others" in line["message"]]


def test_a_file_that_is_not_a_database_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no database " * 1000)
    (tmp_path / "notes.txt").chmod(0o644)
    done = cli("serve", str(write_function(tmp_path / "f")), "--port", "0", "--db", str(tmp_path / "notes.txt"))
    assert done.returncode == 1
    assert mode(tmp_path / "notes.txt") == 0o644


def test_a_folder_not_made_by_stepwell_keeps_its_mode(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    with serve(write_function(tmp_path / "f"), shared / "db"):
        assert mode(shared) == 0o755
        assert readable_by_others(shared) == []


def test_an_input_of_a_step_is_for_the_servers_user(tmp_path: Path) -> None:
    go, value = tmp_path / "go", tmp_path / "said"
    step = program(
        f'echo "$STEPWELL_INPUT $TMPDIR" > {value}.new; mv {value}.new {value}; '
        f"while [ ! -e {go} ]; do sleep 0.01; done"
    )
    key = new_key(tmp_path / "db")
    with serve(write_function(tmp_path / "f", a=step), tmp_path / "db") as server, api(server, key) as http:
        event = http.send()
        eventually(value.exists)
        top = {Path("/dev/shm"), Path(tempfile.gettempdir())}
        for path in map(Path, value.read_text().split()):
            closed = [folder for folder in path.parents if folder not in top and not mode(folder) & OTHERS]
            assert closed, f"others reach {path}"
        go.touch()
        http.ended(event)
