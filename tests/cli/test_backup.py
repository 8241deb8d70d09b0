"""`stepwell backup` and `restore`: a lost server is restored completely, or the command prints the reason and changes
nothing."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import Json, api, cli, eventually, new_key, program, serve, write_function


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to copy, with functions (`f`), the database and code of a server that has run once and has a waiting run
    (`a`), and a backup of it."""
    folder = tmp_path_factory.mktemp("made")
    functions, db = _functions(folder), folder / "a" / "db"
    with serve(functions, db) as server, api(server, new_key(db)) as http:
        event = http.send()
        eventually(lambda: http.runs_of(event)[0]["steps"]["b"]["status"] == "waiting")
        assert cli("backup", str(folder / "backup.tar"), "--db", str(db)).returncode == 0
        assert server.stop() == 0
    return folder


def _functions(folder: Path) -> Path:
    waiting = {"after": [{"step": "a", "async": {"event": "more", "ttl": "3d"}}]}
    first = program("cat said.txt; ./tool; cat deep/er/link")
    folder = write_function(folder / "f", a=first, b=program("echo 4", **waiting))
    (folder / "said.txt").write_text("one ")
    (folder / "tool").write_text("#!/bin/sh\nprintf 'two '\n")
    (folder / "tool").chmod(0o755)
    (folder / "deep/er").mkdir(parents=True)
    (folder / "deep/er/link").symlink_to("../target")
    (folder / "deep/target").write_text("three")
    return folder


@pytest.fixture
def functions(tmp_path: Path, made: Path) -> Path:
    return Path(shutil.copytree(made / "f", tmp_path / "f", symlinks=True))


@pytest.fixture
def backup(tmp_path: Path, made: Path) -> Path:
    shutil.copytree(made / "a", tmp_path / "a", symlinks=True)
    return Path(shutil.copy(made / "backup.tar", tmp_path / "backup.tar"))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def snapshot(folder: Path) -> dict[str, object]:
    """The content of all files in a folder."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        content = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = (mode(path), content)
    return found


def restored(file: Path, db: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return cli("restore", str(file), "--db", str(db), *options)


def test_a_restored_server_continues_from_the_time_of_the_backup(tmp_path: Path, backup: Path) -> None:
    db = tmp_path / "b" / "db"
    done = restored(backup, db)
    assert done.returncode == 0, done.stderr
    key = new_key(db)
    (tmp_path / "none").mkdir()
    with serve(tmp_path / "none", db) as server, api(server, key) as http:
        (run,) = http.get("/v1/runs")["data"]
        assert run["status"] == "running"
        http.send("more")
        ended = http.ended(run["event_id"])
    assert (ended["status"], ended["steps"]["a"]["output"]) == ("completed", {"body": "one two three"})
    assert sorted(path.name for path in db.parent.iterdir() if "restore" in path.name) == []


def test_restored_files_are_private_and_have_their_modes(tmp_path: Path, backup: Path) -> None:
    db = tmp_path / "b" / "db"
    assert restored(backup, db).returncode == 0
    assert (mode(db), mode(db.parent), mode(db.parent / ".db.code")) == (0o600, 0o700, 0o700)
    before, after = (
        {name: item for name, item in snapshot(tmp_path / text / ".db.code").items() if not name.startswith(".")}
        for text in "ab"
    )
    assert before == after


def test_only_the_owner_can_read_a_backup(tmp_path: Path, backup: Path) -> None:
    assert cli("backup", str(tmp_path / "new.tar"), "--db", str(tmp_path / "a" / "db")).returncode == 0
    assert mode(tmp_path / "new.tar") == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files for others")
def test_files_restored_by_root_belong_to_the_owner_of_the_folder(tmp_path: Path, backup: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    os.chown(home, 1234, 1234)
    assert restored(backup, home / "db").returncode == 0
    assert cli("keys", "create", "--db", str(home / "new.db")).returncode == 0
    assert {path.lstat().st_uid for path in home.rglob("*")} == {1234}


def test_a_missing_backup_is_reported(tmp_path: Path) -> None:
    refused = restored(tmp_path / "nope", tmp_path / "db")
    assert (refused.returncode, "there is no backup" in refused.stderr) == (2, True)


def test_old_keys_and_links_are_valid_after_a_restore(tmp_path: Path, functions: Path) -> None:
    key = new_key(tmp_path / "a" / "db")
    with serve(functions, tmp_path / "a" / "db") as server, api(server, key) as http:
        http.send()
    assert cli("backup", str(tmp_path / "x"), "--db", str(tmp_path / "a" / "db")).returncode == 0
    assert restored(tmp_path / "x", tmp_path / "b" / "db").returncode == 0
    with serve(functions, tmp_path / "b" / "db") as server, api(server, key) as http:
        assert len(http.get("/v1/runs")["data"]) == 1


def test_a_backup_under_load_is_consistent(tmp_path: Path, functions: Path) -> None:
    """The backup has every event that was answered before it began, and the event of every run."""
    db = tmp_path / "a" / "db"
    key = new_key(db)
    stop = threading.Event()
    with serve(functions, db, "--no-fsync") as server, api(server, key) as http:
        before = [http.send("nothing", data={"x": "x" * 10_000}) for _ in range(300)]

        def pour() -> None:
            while not stop.is_set():
                http.send(data={"x": "x" * 10_000})

        sender = threading.Thread(target=pour)
        sender.start()
        for n in range(3):
            assert cli("backup", str(tmp_path / f"{n}.tar"), "--db", str(db)).returncode == 0
        stop.set()
        sender.join()
    for n in range(3):
        assert restored(tmp_path / f"{n}.tar", tmp_path / str(n) / "db").returncode == 0
        with sqlite3.connect(tmp_path / str(n) / "db") as connection:
            ids = {event_id for (event_id,) in connection.execute("SELECT id FROM events")}
            sql = "SELECT count(*) FROM runs WHERE event NOT IN (SELECT seq FROM events)"
            assert connection.execute(sql).fetchone() == (0,)
        assert set(before) <= ids


def test_a_backup_goes_to_stdout_and_comes_from_stdin(tmp_path: Path, backup: Path) -> None:
    db, command = tmp_path / "a" / "db", [sys.executable, "-m", "stepwell"]
    made = subprocess.run([*command, "backup", "-", "--db", db], capture_output=True, check=True)
    (tmp_path / "b").mkdir()
    subprocess.run([*command, "restore", "-", "--db", tmp_path / "b" / "db"], input=made.stdout, check=True)
    assert (tmp_path / "b" / "db").is_file()


def test_existing_files_are_replaced_only_with_force(tmp_path: Path, backup: Path) -> None:
    db = tmp_path / "a" / "db"
    before = (backup.read_bytes(), snapshot(db.parent))
    refused = cli("backup", str(backup), "--db", str(db))
    assert (refused.returncode, "--force" in refused.stderr) == (1, True)
    refused = restored(backup, db)
    assert (refused.returncode, "--force" in refused.stderr) == (1, True)
    assert (backup.read_bytes(), snapshot(db.parent)) == before
    assert cli("backup", str(backup), "--db", str(db), "--force").returncode == 0
    assert restored(backup, db, "--force").returncode == 0


def test_a_replaced_database_has_only_the_data_of_the_backup(tmp_path: Path, backup: Path, functions: Path) -> None:
    db = tmp_path / "a" / "db"
    key = new_key(db)
    with serve(functions, db) as server, api(server, key) as http:
        http.send("later")
        server.kill()  # so that the write-ahead log of the old database still exists
    assert restored(backup, db, "--force").returncode == 0
    key = new_key(db)
    with serve(functions, db) as server, api(server, key) as http:
        assert [event["name"] for event in http.get("/v1/events")["data"]] == ["go"]


def test_the_database_of_a_running_server_is_not_replaced(tmp_path: Path, backup: Path, functions: Path) -> None:
    db = tmp_path / "a" / "db"
    with serve(functions, db) as server:
        before = sorted(path.name for path in db.parent.iterdir())
        refused = restored(backup, db, "--force")
        assert refused.returncode == 1
        assert f"process {server.process.pid}" in refused.stderr
        assert sorted(path.name for path in db.parent.iterdir()) == before


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A backup of a server with a run that has a long log, and the log."""
    folder = tmp_path_factory.mktemp("logged")
    script = (
        "i=0; while [ $i -lt 3000 ]; do echo $i a line of a log that is long, and has many of these; i=$((i+1)); done"
    )
    functions, db = write_function(folder / "f", a=program(f"({script}) >&2; echo 1")), folder / "a" / "db"
    with serve(functions, db) as server, api(server, new_key(db)) as http:
        run = http.ended(http.send())
        (log,) = [attempt["logs"] for attempt in run["steps"]["a"]["attempts"]]
        assert cli("backup", str(folder / "backup.tar"), "--db", str(db)).returncode == 0
        assert server.stop() == 0
    assert len(log) > 100_000
    return folder / "backup.tar", log


def test_long_logs_are_restored_and_private(tmp_path: Path, logged: tuple[Path, str]) -> None:
    backup, log = logged
    db = tmp_path / "b" / "db"
    assert restored(backup, db).returncode == 0
    assert {mode(path) for path in (db.parent / ".db.logs").iterdir()} == {0o600}
    assert mode(db.parent / ".db.logs") == 0o700
    key = new_key(db)
    (tmp_path / "none").mkdir()
    with serve(tmp_path / "none", db) as server, api(server, key) as http:
        (run,) = http.get("/v1/runs")["data"]
        (attempt,) = http.get(f"/v1/runs/{run['id']}")["steps"]["a"]["attempts"]
    assert attempt["logs"] == log


def test_a_backup_with_changed_logs_is_refused(tmp_path: Path, logged: tuple[Path, str]) -> None:
    backup, _ = logged
    more = [*members(backup), (tarfile.TarInfo(f"logs/9-9-9-{'0' * 16}.log"), b"x")]
    for name, broken in {
        "changed": changed("logs/", lambda content: content[:-1] + b"x")(backup, tmp_path / "changed"),
        "without": without("logs/")(backup, tmp_path / "without"),
        "without hashes": without("logs.json")(backup, tmp_path / "without-hashes"),
        "one more": rewritten(backup, tmp_path / "more", more),
        "called otherwise": member("logs/../escaped", b"x")(backup, tmp_path / "otherwise"),
    }.items():
        refused = restored(broken, tmp_path / "b" / "db")
        assert (refused.returncode, "Nothing was changed" in refused.stderr) == (1, True), name
        assert not (tmp_path / "b").exists(), name


# --- damaged backups -------------------------------------------------------------------------------------------------


def members(backup: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(backup) as archive:
        return [
            (member, (archive.extractfile(member) or io.BytesIO()).read() if member.isreg() else b"")
            for member in archive
        ]


def rewritten(backup: Path, to: Path, items: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(to, "w", format=tarfile.PAX_FORMAT) as archive:
        for member, content in items:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return to


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> Callable[..., Path]:
    """The backup with one more member."""

    def change(backup: Path, to: Path) -> Path:
        found = members(backup)
        code = next(member.name.split("/")[1] for member, _ in found if member.name.startswith("code/"))
        more = tarfile.TarInfo(name.replace("HASH", code))
        more.type, more.linkname, more.mode = kind, link, 0o644
        return rewritten(backup, to, [*found, (more, content)])

    return change


def cut(part: float) -> Callable[..., Path]:
    def change(backup: Path, to: Path) -> Path:
        content = backup.read_bytes()
        to.write_bytes(content[: int(len(content) * part)])
        return to

    return change


def without(name: str) -> Callable[..., Path]:
    return lambda backup, to: rewritten(
        backup, to, [member for member in members(backup) if name not in member[0].name]
    )


def changed(name: str, change_content: Callable[[bytes], bytes]) -> Callable[..., Path]:
    def change(backup: Path, to: Path) -> Path:
        found = members(backup)
        return rewritten(
            backup, to, [(member, change_content(text) if name in member.name else text) for member, text in found]
        )

    return change


def _damaged(content: bytes) -> bytes:
    """Overwrites the heads of all pages except the first."""
    pages = [content[start : start + 4096] for start in range(0, len(content), 4096)]
    return b"".join([pages[0], *(os.urandom(100) + page[100:] for page in pages[1:])])


def _other_database(content: bytes) -> bytes:
    return content[:-100] + b"x" * 100


def _manifest(**fields: object) -> Callable[..., Path]:
    return changed("manifest.json", lambda content: json.dumps({**json.loads(content), **fields}).encode())


def _consistent(change_database: Callable[[bytes], bytes]) -> Callable[..., Path]:
    """A backup whose manifest matches a damaged database."""

    def change(backup: Path, to: Path) -> Path:
        found: list[tuple[tarfile.TarInfo, bytes]] = members(backup)
        database = change_database(next(content for member, content in found if member.name == "database"))
        manifest: Json = json.loads(found[0][1])
        manifest["database"] = {"bytes": len(database), "sha256": hashlib.sha256(database).hexdigest()}
        contents = {"manifest.json": json.dumps(manifest).encode(), "database": database}
        return rewritten(backup, to, [(member, contents.get(member.name, content)) for member, content in found])

    return change


BROKEN = {
    "empty": lambda backup, to: (to.write_bytes(b"") and to) or to,
    "no archive": lambda backup, to: to.write_text("hello " * 5000) and to,
    "a database": lambda backup, to: sqlite3.connect(to).execute("CREATE TABLE t (x)") and to,
    "another archive": lambda backup, to: rewritten(backup, to, [(tarfile.TarInfo("notes.txt"), b"x")]),
    **{f"cut at {part:.0%}": cut(part) for part in (0.001, 0.1, 0.5, 0.9)},
    "without manifest": without("manifest"),
    "without database": without("database"),
    "without code": without("code/"),
    "without a file of the code": without("said.txt"),
    "without a link": without("deep/er/link"),
    "other code": changed("said.txt", lambda content: b"0ne "),
    "another database": changed("database", _other_database),
    "a damaged database": _consistent(_damaged),
    "no database in it": _consistent(lambda content: b"no database" * 100),
    "a manifest that is no JSON": changed("manifest", lambda content: b"{"),
    "a manifest that is a list": changed("manifest", lambda content: b"[]"),
    "a manifest of other types": _manifest(code=[1, 2]),
    "a newer format": _manifest(format=99),
    "a newer schema": _consistent(lambda content: content[:60] + (999).to_bytes(4, "big") + content[64:]),
    "another file": member("x", b"x"),
    "a file twice": member("database", b"x"),
    "a path upwards": member("code/HASH/../../../escaped", b"x"),
    "a dot in a path": member("code/HASH/./x", b"x"),
    "an absolute path": member("/tmp/escaped", b"x"),
    "code that is no hash": member("code/../escaped", b"x"),
    "one file more": member("code/HASH/more", b"x"),
    "code of nobody": member(f"code/{'0' * 64}/x", b"x"),
    "a link upwards": member("code/HASH/out", kind=tarfile.SYMTYPE, link="../../../etc/passwd"),
    "an absolute link": member("code/HASH/out", kind=tarfile.SYMTYPE, link="/etc/passwd"),
    "a link for a database": member("database", kind=tarfile.SYMTYPE, link="/etc/passwd"),
    "a hard link": member("code/HASH/out", kind=tarfile.LNKTYPE, link="/etc/passwd"),
    "a device": member("code/HASH/out", kind=tarfile.CHRTYPE),
    "a pipe": member("code/HASH/out", kind=tarfile.FIFOTYPE),
    "a file through a link": member("code/HASH/deep/er/link/x", b"x"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_an_incomplete_or_damaged_backup_is_refused_and_changes_nothing(
    tmp_path: Path, backup: Path, what: str
) -> None:
    broken = BROKEN[what](backup, tmp_path / "broken")
    (tmp_path / "b").mkdir()
    before, old = snapshot(tmp_path / "b"), snapshot(tmp_path / "a")
    refused = restored(broken, tmp_path / "b" / "db")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: ")
    assert refused.stderr.count("\n") == 1, refused.stderr
    assert "Nothing was changed" in refused.stderr
    assert restored(broken, tmp_path / "a" / "db", "--force").returncode == 1
    assert (snapshot(tmp_path / "b"), snapshot(tmp_path / "a")) == (before, old)
    assert not (tmp_path / "escaped").exists()


def test_a_refused_restore_does_not_create_the_folder(tmp_path: Path, backup: Path) -> None:
    (tmp_path / "broken").write_text("x" * 10_000)
    assert restored(tmp_path / "broken", tmp_path / "new" / "db").returncode == 1
    assert not (tmp_path / "new").exists()


# --- interruptions ---------------------------------------------------------------------------------------------------


def killed_at(command: list[str | Path], call: str) -> None:
    """Runs a command that is killed right before it calls this function of `os` or `pathlib`."""
    script = (
        "import os, pathlib, signal, sys\n"
        f"owner, name = {call!r}.split('.')\n"
        "owner = {'os': os, 'Path': pathlib.Path}[owner]\n"
        "setattr(owner, name, lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL))\n"
        "from stepwell.cli.main import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, timeout=30)
    assert done.returncode == -signal.SIGKILL, done


@pytest.mark.parametrize("call", ["os.sync", "Path.rename", "os.fsync", "Path.rmdir"])
def test_a_restore_that_is_killed_leaves_the_old_database_or_the_new_one(
    tmp_path: Path, backup: Path, functions: Path, call: str
) -> None:
    db = tmp_path / "a" / "db"
    key = new_key(db)
    with serve(functions, db) as server, api(server, key) as http:
        later = http.send("later")
        server.kill()
    killed_at(["restore", backup, "--db", db, "--force"], call)
    with serve(functions, db) as server, api(server, new_key(db)) as http:
        names = {event["name"] for event in http.get("/v1/events")["data"]}
        assert names in ({"go"}, {"go", "later"})
        (run,) = http.get("/v1/runs")["data"]
        http.send("more")
        assert http.ended(run["event_id"])["status"] == "completed"
    assert later
    assert restored(backup, db, "--force").returncode == 0
    assert not [path for path in db.parent.iterdir() if path.name.endswith(".restore")]


def test_a_killed_backup_leaves_no_file(tmp_path: Path, backup: Path) -> None:
    killed_at(["backup", tmp_path / "new.tar", "--db", tmp_path / "a" / "db"], "os.fsync")
    assert not (tmp_path / "new.tar").exists()


def test_a_full_disk_is_reported_and_leaves_no_partial_file(tmp_path: Path, backup: Path) -> None:
    """A limit on the size of files simulates a full disk, because SQLite handles both in the same way."""
    db, stepwell = tmp_path / "a" / "db", f"{sys.executable} -m stepwell"
    (tmp_path / "out").mkdir()
    shell = f"trap '' XFSZ; ulimit -f 40; {stepwell} backup {tmp_path}/out/x.tar --db {db}"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr[:7]) == (1, "error: ")
    assert snapshot(tmp_path / "out") == {}
    (tmp_path / "b").mkdir()
    shell = f"trap '' XFSZ; ulimit -f 40; {stepwell} restore {backup} --db {tmp_path}/b/db"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr[:7]) == (1, "error: ")
    assert snapshot(tmp_path / "b") == {}


# --- missing code ----------------------------------------------------------------------------------------------------


def test_a_backup_fails_if_code_of_a_live_version_is_missing(tmp_path: Path, backup: Path) -> None:
    db = tmp_path / "a" / "db"
    (code,) = (path for path in (tmp_path / "a" / ".db.code").iterdir() if len(path.name) == 64)
    code.rename(tmp_path / "elsewhere")
    refused = cli("backup", str(tmp_path / "x.tar"), "--db", str(db))
    assert refused.returncode == 1
    assert "f version 1, step" in refused.stderr
    assert not (tmp_path / "x.tar").exists()


def test_a_backup_fails_if_stored_code_was_changed(tmp_path: Path, backup: Path) -> None:
    (code,) = (path for path in (tmp_path / "a" / ".db.code").iterdir() if len(path.name) == 64)
    (code / "said.txt").chmod(0o644)
    (code / "said.txt").write_text("changed")
    refused = cli("backup", str(tmp_path / "x.tar"), "--db", str(tmp_path / "a" / "db"))
    assert refused.returncode == 1
    assert "was changed" in refused.stderr
    assert not (tmp_path / "x.tar").exists()
