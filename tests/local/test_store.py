"""The database file: schema, migrations, row numbers, and who may open it."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from stepwell.local.database.keys import KeyStore
from stepwell.local.database.lock import InUse, exclusive
from stepwell.local.database.schema import MIGRATIONS, BadDatabase, DatabaseTooNew, connect, migrate
from stepwell.local.store.store import LocalStore


def tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def version(connection: sqlite3.Connection) -> int:
    number: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return number


def test_a_new_file_gets_all_tables(tmp_path: Path) -> None:
    connection = connect(tmp_path / "db")
    migrate(connection)
    assert {"events", "runs", "attempts", "logs", "timers", "waits", "functions", "versions", "keys"} <= tables(
        connection
    )
    assert version(connection) == len(MIGRATIONS)
    connection.close()


def test_an_up_to_date_file_is_not_changed(tmp_path: Path) -> None:
    for _ in range(2):
        LocalStore(tmp_path / "db").close()
    connection = connect(tmp_path / "db")
    before = connection.execute("PRAGMA schema_version").fetchone()
    migrate(connection)
    assert connection.execute("PRAGMA schema_version").fetchone() == before
    connection.close()


def test_an_up_to_date_file_can_be_opened_while_a_batch_is_written(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "db")
    batch = store.batch(0)
    KeyStore(tmp_path / "db").close()
    batch.rollback()
    store.close()


def test_only_the_migrations_that_are_missing_are_made(tmp_path: Path) -> None:
    connection = connect(tmp_path / "db")
    migrate(connection)
    more = ("CREATE TABLE one (a); -- with a comment; and a semicolon\n CREATE TABLE two (b);", "DROP TABLE one;")
    migrate(connection, (*MIGRATIONS, *more))
    assert version(connection) == len(MIGRATIONS) + 2
    assert "two" in tables(connection)
    assert "one" not in tables(connection)
    connection.close()


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    connection = connect(tmp_path / "db")
    migrate(connection)
    before = tables(connection)
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, (*MIGRATIONS, "CREATE TABLE one (a);\nnonsense;"))
    assert (tables(connection), version(connection)) == (before, len(MIGRATIONS))
    connection.close()


def test_attempts_of_an_older_file_get_the_users_of_their_runs(tmp_path: Path) -> None:
    """A user's timeline finds attempts by their user."""
    connection = connect(tmp_path / "db")
    migrate(connection, MIGRATIONS[: next(n for n, script in enumerate(MIGRATIONS) if "attempts_user" in script)])
    for seq, user in ((1, "ada"), (2, None)):
        connection.execute(
            'INSERT INTO runs (seq, id, function, version, event, user, "after", status, active, created_at, state)'
            " VALUES (?, ?, 'f', 1, 1, ?, 0, 1, 0, 0, '')",
            (seq, f"r{seq}", user),
        )
        sql = "INSERT INTO attempts (run, step, attempt, status, queued_at, ended_at) VALUES (?, 0, 1, 'failed', 0, 5)"
        connection.execute(sql, (seq,))
    migrate(connection)
    assert connection.execute("SELECT run, user, ended_at FROM attempts ORDER BY run").fetchall() == [
        (1, "ada", 5),
        (2, None, 5),
    ]
    connection.close()


def test_times_of_an_older_file_grow_with_the_numbers_of_rows(tmp_path: Path) -> None:
    connection = connect(tmp_path / "db")
    migrate(connection, MIGRATIONS[: next(n for n, script in enumerate(MIGRATIONS) if "grown.at" in script)])
    for seq, at in enumerate((5, 9, 8, 3, 9, 12), 1):
        sql = "INSERT INTO events (seq, id, name, accepted_at, body) VALUES (?, ?, 'x', ?, '')"
        connection.execute(sql, (seq, f"e{seq}", at))
    migrate(connection)
    rows = connection.execute("SELECT accepted_at FROM events ORDER BY seq")
    assert [at for (at,) in rows] == [5, 9, 9, 9, 9, 12]
    connection.close()


@pytest.mark.parametrize("file", range(20))  # several tries, since a collision is a matter of luck
def test_many_may_open_a_new_file_at_once(tmp_path: Path, file: int) -> None:
    problems = []

    def open_it() -> None:
        try:
            KeyStore(tmp_path / "db").close()
        except Exception as problem:
            problems.append(problem)

    threads = [threading.Thread(target=open_it) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_a_newer_file_is_refused_and_not_touched(tmp_path: Path) -> None:
    connection = connect(tmp_path / "db")
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(DatabaseTooNew, match=r"upgrade"):
        migrate(connection)
    assert tables(connection) == set()
    assert not connection.in_transaction
    connection.close()


def test_a_file_that_is_not_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database " * 1000)
    for path in (tmp_path / "text", tmp_path, tmp_path / "missing" / "db"):
        with pytest.raises(BadDatabase) as refused:
            connect(path)
        assert str(path) in str(refused.value)


@pytest.mark.parametrize("name", ["a b", "a?b", "a#b", "a%41b", "ü"])
def test_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    connection = connect(tmp_path / name)
    migrate(connection)
    reader = connect(tmp_path / name, read_only=True)
    assert tables(reader) == tables(connection)
    assert (tmp_path / name).is_file()
    reader.close()
    connection.close()


def test_a_database_has_one_holder(tmp_path: Path) -> None:
    second = exclusive(tmp_path / "db")
    with exclusive(tmp_path / "db"), pytest.raises(InUse, match=r"in use by process \d+"):
        second.__enter__()
    with exclusive(tmp_path / "db"):
        pass


def test_outdated_statistics_are_deleted(tmp_path: Path) -> None:
    """SQLite uses them for plans: it would scan a table forever that was short once."""
    LocalStore(tmp_path / "db").close()
    connection = connect(tmp_path / "db")
    connection.execute("INSERT INTO people (record) VALUES ('')")
    connection.execute("ANALYZE")
    plan = "EXPLAIN QUERY PLAN SELECT seq FROM people WHERE seq < ? ORDER BY seq DESC"
    assert connection.execute("SELECT count(*) FROM sqlite_stat1").fetchone() != (0,)
    connection.close()
    LocalStore(tmp_path / "db").close()
    connection = connect(tmp_path / "db")
    assert "sqlite_stat1" not in tables(connection)
    assert "SEARCH people" in connection.execute(plan, (1,)).fetchone()[3]
    connection.close()
