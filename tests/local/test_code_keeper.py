"""Changed code of a version is always detected: it is restored, or the version's steps do not run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stepwell.local.code.keeper import CodeKeeper
from stepwell.project.code import StepCode, read_code
from stepwell.project.code_copies import materialise
from tests.servers import QUICK, Json, Server, api, cli, dev, eventually, new_key, program, serve, write_function

FILES = {"main.sh": "echo 1\n", "lib/a.txt": "a", "lib/deep/b.txt": "b"}


@pytest.fixture
def code(tmp_path: Path) -> StepCode:
    for name, text in FILES.items():
        file = tmp_path / "source" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "source/main.sh").chmod(0o755)
    (tmp_path / "source/link").symlink_to("main.sh")
    return read_code(tmp_path / "source", tmp_path)


@pytest.fixture
def keeper(tmp_path: Path, code: StepCode) -> Iterator[CodeKeeper]:
    keeper = CodeKeeper(tmp_path / "code")
    keeper.store(code)
    settle(keeper, code)
    yield keeper
    open_up(tmp_path / "code")


def settle(keeper: CodeKeeper, code: StepCode) -> None:
    """Waits until file times are old enough to be trusted."""
    eventually(lambda: keeper.check(code.hash, "f", 1) is None and keeper.is_unchanged(code.hash))


def open_up(folder: Path) -> None:
    """Makes the code writable and removable for users other than root."""
    for parent, _, files in os.walk(folder):
        Path(parent).chmod(0o755)
        for file in files:
            path = Path(parent, file)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | 0o200)


def test_code_is_written_read_only(keeper: CodeKeeper, code: StepCode) -> None:
    for path in [keeper.folder / code.hash, *(keeper.folder / code.hash).rglob("*")]:
        assert path.is_symlink() or path.stat().st_mode & 0o222 == 0


def test_code_that_did_not_change_is_not_hashed_again(keeper: CodeKeeper, code: StepCode) -> None:
    assert keeper.is_unchanged(code.hash)
    assert not CodeKeeper(keeper.folder).is_unchanged(code.hash)  # a new keeper has not verified it yet
    assert CodeKeeper(keeper.folder).check(code.hash, "f", 1) is None


def same_size_and_times(folder: Path) -> None:
    file = folder / "lib/a.txt"
    stat = file.stat()
    file.write_text("b")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def replaced(folder: Path) -> None:
    shutil.copy2(folder / "lib/a.txt", folder / "new")
    (folder / "new").chmod(0o644)
    (folder / "new").write_text("c")
    (folder / "new").replace(folder / "lib/a.txt")


CHANGES: list[Callable[[Path], object]] = [
    lambda folder: (folder / "main.sh").write_text("echo 2\n"),
    lambda folder: (folder / "lib/deep/b.txt").write_text("bb"),
    same_size_and_times,
    replaced,
    lambda folder: (folder / "new.py").touch(),
    lambda folder: (folder / "lib/deep/new.py").touch(),
    lambda folder: (folder / ".env").write_text("A=1"),
    lambda folder: (folder / ".hidden").mkdir() or (folder / ".hidden/x").touch(),  # type: ignore[func-returns-value]
    lambda folder: (folder / "lib/a.txt").unlink(),
    lambda folder: shutil.rmtree(folder / "lib"),
    lambda folder: (folder / "main.sh").chmod(0o444),  # no longer executable
    lambda folder: (folder / "link").unlink() or (folder / "link").symlink_to("lib/a.txt"),  # type: ignore[func-returns-value]
    lambda folder: (folder / "__pycache__").symlink_to("/tmp"),
    lambda folder: os.mkfifo(folder / "pipe"),
    lambda folder: shutil.rmtree(folder),
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("is_known", [True, False])
def test_every_change_is_detected(
    keeper: CodeKeeper, code: StepCode, change: Callable[[Path], object], is_known: bool
) -> None:
    folder = keeper.folder / code.hash
    open_up(folder)
    if is_known:
        settle(keeper, code)
    change(folder)
    keeper = keeper if is_known else CodeKeeper(keeper.folder)
    assert not keeper.is_unchanged(code.hash)
    problem = keeper.check(code.hash, "f", 1)
    assert problem is not None
    assert "differs from the code of version 1" in problem
    assert "Restore a backup" in problem
    materialise(code, keeper.folder)
    assert keeper.check(code.hash, "f", 1) is None


def test_the_message_names_the_files_that_changed(keeper: CodeKeeper, code: StepCode) -> None:
    open_up(keeper.folder / code.hash)
    settle(keeper, code)
    (keeper.folder / code.hash / "main.sh").write_text("echo 2\n")
    assert "of version 1 (main.sh)," in str(keeper.check(code.hash, "f", 1))


def test_a_change_in_the_same_tick_as_the_hash_is_detected(keeper: CodeKeeper, code: StepCode) -> None:
    folder = keeper.folder / code.hash
    open_up(folder)
    for _ in range(20):
        assert keeper.check(code.hash, "f", 1) is None
        (folder / "lib/a.txt").write_text("b")
        assert keeper.check(code.hash, "f", 1) is not None
        (folder / "lib/a.txt").write_text("a")


def test_bytecode_folders_are_ignored_and_removed(keeper: CodeKeeper, code: StepCode) -> None:
    folder = keeper.folder / code.hash
    open_up(folder)
    for place in (folder, folder / "lib"):
        (place / "__pycache__").mkdir()
        (place / "__pycache__/x.cpython-311.pyc").write_bytes(b"who knows what this does")
    assert not keeper.is_unchanged(code.hash)
    assert keeper.check(code.hash, "f", 1) is None
    assert not list(folder.rglob("__pycache__"))
    settle(keeper, code)


def test_code_with_many_files_is_verified_in_a_thread(tmp_path: Path) -> None:
    for n in range(1000):
        (tmp_path / "many" / str(n % 10)).mkdir(parents=True, exist_ok=True)
        (tmp_path / f"many/{n % 10}/{n}").touch()
    code, keeper = read_code(tmp_path / "many", tmp_path), CodeKeeper(tmp_path / "code")
    keeper.store(code)
    assert keeper.check(code.hash, "f", 1) is None
    assert not keeper.is_unchanged(code.hash)
    open_up(tmp_path / "code")


# --- a server ----------------------------------------------------------------------------------------------------

VANDAL = """
cat value
chmod u+w . value
echo '"hacked"' > value
"""


def vandal(folder: Path) -> Path:
    step: Json = {"path": "file://step", "runtime": {"type": "lambda", "command": ["sh", "main.sh"]}, **QUICK}
    (folder / "step").mkdir(parents=True)
    (folder / "step/main.sh").write_text(VANDAL)
    (folder / "step/value").write_text('"mine"\n')
    return write_function(folder, a=step)


def outcome(run: Json) -> tuple[object, str | None]:
    step = run["steps"]["a"]
    return step["output"], step["error"] and step["error"]["kind"]


def test_code_that_a_step_changed_is_restored_from_the_functions_folder(tmp_path: Path) -> None:
    with dev(vandal(tmp_path / "f"), tmp_path / "db") as server, api(server) as http:
        for _ in range(3):
            assert outcome(http.ended(http.send())) == ("mine", None)


def pushed(folder: Path, server: Server, key: str) -> None:
    assert cli("push", str(folder), STEPWELL_URL=server.url, STEPWELL_KEY=key).returncode == 0


def test_code_that_a_step_changed_is_restored_from_the_pushed_archive(tmp_path: Path) -> None:
    folder, db = vandal(tmp_path / "f"), tmp_path / "db"
    key = new_key(db)
    (tmp_path / "none").mkdir()
    with serve(tmp_path / "none", db) as server, api(server, key) as http:
        pushed(folder, server, key)
        shutil.rmtree(folder)
        for _ in range(3):
            assert outcome(http.ended(http.send())) == ("mine", None)


def test_changed_code_that_cannot_be_restored_does_not_run(tmp_path: Path) -> None:
    folder, db = vandal(tmp_path / "f"), tmp_path / "db"
    key = new_key(db)
    (tmp_path / "none").mkdir()
    with serve(tmp_path / "none", db) as server, api(server, key) as http:
        pushed(folder, server, key)
        (archive,) = (tmp_path / ".db.code").glob("f-1.zip")
        assert archive.stat().st_mode & 0o077 == 0
        archive.unlink()
        assert outcome(http.ended(http.send())) == ("mine", None)
        failed = http.ended(http.send())
        assert outcome(failed) == (None, "code_changed")
        assert len(failed["steps"]["a"]["attempts"]) == 1
        # The changed files are named if the code was stored for long enough that its file times are known for certain.
        assert "differs from the code of version 1" in failed["steps"]["a"]["error"]["message"]
        assert "make a new version" in failed["steps"]["a"]["error"]["message"]


def test_code_that_was_changed_while_the_server_was_away_is_noticed_at_the_start(tmp_path: Path) -> None:
    folder, db = write_function(tmp_path / "f", a=program("cat value")), tmp_path / "db"
    (folder / "value").write_text('"mine"\n')
    key = new_key(db)

    def tamper() -> None:
        (copy,) = [path for path in (tmp_path / ".db.code").iterdir() if len(path.name) == 64]
        open_up(copy)
        (copy / "value").write_text('"hacked"')

    with serve(folder, db) as server, api(server, key) as http:
        assert outcome(http.ended(http.send())) == ("mine", None)
        server.stop()
    tamper()
    with serve(folder, db) as server, api(server, key) as http:
        assert any("has been restored" in line["message"] for line in server.lines)
        assert outcome(http.ended(http.send())) == ("mine", None)
        server.stop()
    tamper()
    (folder / "value").write_text('"newer"\n')
    (folder / "stepwell.json").write_text("{")  # so that the function keeps its last version
    refused = cli("serve", str(folder), "--port", "0", "--db", str(db))
    assert refused.returncode == 1
    assert "f version 1 (live), step a" in refused.stderr
    with serve(folder, db, "--allow-missing-code") as server, api(server, key) as http:
        assert any("f version 1 (live)" in line["message"] for line in server.lines)
        assert outcome(http.ended(http.send())) == (None, "code_changed")


def test_a_python_handler_may_leave_bytecode(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f/app.py").write_text("import lib\ndef handler(event, context): return lib.value\n")
    (tmp_path / "f/lib.py").write_text("value = 1\n")
    step: Json = {"path": "file://.", "runtime": {"type": "lambda", "handler": "app.handler"}, **QUICK}
    step["env"] = {"PYTHONDONTWRITEBYTECODE": ""}
    with dev(write_function(tmp_path / "f", a=step), tmp_path / "db") as server, api(server) as http:
        for _ in range(3):
            assert outcome(http.ended(http.send())) == (1, None)
