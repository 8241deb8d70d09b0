"""No statement scans a table that grows: SQLite's query plan shows how each statement finds rows.

Statements are recorded while everything happens once to a server, and compared with the SQL in the source files. So
none is overlooked: `everything.py` must execute each new statement.
"""

from __future__ import annotations

import ast
import asyncio
import functools
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import stepwell.local
from stepwell.local.database.schema import MIGRATIONS, connect, migrate
from tests.local.everything import everything
from tests.local.history import History

# Tables that grow with events and runs; the others grow with deployed functions only.
GROWING = {
    "events", "event_keys", "runs", "attempts", "logs", "log_files", "timers", "waits", "people", "person_ids", "once",
    "rate_starts", "singletons",
    "kept", "unrouted", "long_texts", "run_parts", "accepted_attempts", "quarantine", "celery_calls",
    "faktory_results", "faktory_scheduled", "throttles", "limit_waits", "limit_lanes",
}  # fmt: skip
DEPLOYED = {
    "functions", "versions", "schedules", "guards", "types", "type_versions", "settings", "webhooks", "keys", "secrets",
    "counters", "trigger_tables", "sources", "faktory_paused", "limits",
}  # fmt: skip

# Statements that scan a whole table, and why they may.
EXCEPTIONS = {
    "SELECT seq FROM events WHERE accepted_at <= ? ORDER BY seq DESC LIMIT 1": "when the clock was set back: ends soon",
    "SELECT seq FROM runs WHERE created_at <= ? ORDER BY seq DESC LIMIT 1": "when the clock was set back: ends soon",
    "SELECT run_id, step, attempt FROM accepted_attempts": "once, when the server starts",
    "SELECT 1 FROM celery_calls LIMIT 1": "once, when sources start: ends with the first row",
    "SELECT run, step, attempt FROM faktory_results": "once, when the Faktory server starts",
    "SELECT name FROM log_files ORDER BY run, step, attempt": "a backup holds all long logs",
}
# Searches without a value: the first or last entry of an index, or the last row.
ENDS = {
    ("runs", None), ("events", None), ("timers", "timers_due"), ("runs", "runs_open_after"),
    ("faktory_scheduled", "faktory_scheduled_due"),
}  # fmt: skip

_NO_PLAN = re.compile(r"\s*(PRAGMA|BEGIN|COMMIT|ROLLBACK|VACUUM|ANALYZE|CREATE|ALTER|DROP)\b")
_SQL = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE|FROM|WHERE|AND|ORDER BY|INDEXED)\b|= \?")


class Noting(sqlite3.Connection):
    """A connection that records the statements that it executes, with `?` for parameters."""

    executed: set[str] = set()  # noqa: RUF012

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        self.executed.add(sql)
        return super().execute(sql, *values)

    def executemany(self, sql: str, *values: Any) -> sqlite3.Cursor:
        self.executed.add(sql)
        return super().executemany(sql, *values)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, factory=Noting))
        asyncio.run(asyncio.wait_for(everything(tmp_path_factory.mktemp("everything")), 60))
    return set(Noting.executed)


@pytest.fixture(scope="module")
def planned(executed: set[str]) -> list[str]:
    """Executed statements without those of migrations, which run once per database."""
    migrations = "".join(MIGRATIONS)
    return sorted(sql for sql in executed if not _NO_PLAN.match(sql) and sql.strip() not in migrations)


@pytest.fixture(scope="module", params=["new", "used"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """A database with statistics, which SQLite uses for plans: one user has nearly everything."""
    path = tmp_path_factory.mktemp("database") / "db"
    connection = History(path, 1, 1000).connection if request.param == "used" else connect(path)
    migrate(connection)
    connection.execute("ANALYZE")
    yield connection
    connection.close()


def test_every_table_is_listed_as_growing_or_not(database: sqlite3.Connection) -> None:
    rows = database.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    assert {name for (name,) in rows} == GROWING | DEPLOYED


def test_statements_find_rows_by_an_index(planned: list[str], database: sqlite3.Connection) -> None:
    problems = {sql: found for sql in planned if sql not in EXCEPTIONS and (found := problems_of(database, sql))}
    assert problems == {}, "\n".join(f"{sql}\n    {found}" for sql, found in problems.items())


def test_exceptions_are_needed(planned: list[str], database: sqlite3.Connection) -> None:
    assert set(EXCEPTIONS) <= set(planned)
    assert all(problems_of(database, sql) for sql in EXCEPTIONS)


def problems_of(database: sqlite3.Connection, sql: str) -> list[str]:
    plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {sql}", (1,) * sql.count("?"))]
    grows = [table for table in GROWING if re.search(rf"\b{table}\b", sql)]
    return [step for step in plan if is_dear(step, bool(grows))]


def is_dear(step: str, grows: bool) -> bool:
    """Whether a step of a plan reads or sorts a table that grows."""
    if step.startswith("USE TEMP B-TREE") or "AUTOMATIC" in step:
        return grows
    found = re.fullmatch(
        r"(SCAN|SEARCH) (\w+)(?: USING (?:COVERING )?INDEX (\w+)| USING (?:INTEGER )?PRIMARY KEY)?( \(.*\))?", step
    )
    if found is None or found[2] not in GROWING:
        return False
    return found[1] == "SCAN" or (found[4] is None and (found[2], found[3]) not in ENDS)


@pytest.mark.parametrize(
    ("step", "is_so"),
    [
        ("SCAN runs", True),
        ("SCAN runs USING COVERING INDEX runs_version", True),
        ("SCAN functions", False),
        ("SEARCH runs USING INDEX runs_open_version", True),  # as for min() without an index of its own
        ("SEARCH runs USING INDEX runs_open_after", False),
        ("SEARCH runs USING INDEX runs_user (user=? AND rowid<?)", False),
        ("SEARCH events USING INTEGER PRIMARY KEY (rowid=?)", False),
        ("SEARCH waits USING PRIMARY KEY", True),
        ("USE TEMP B-TREE FOR ORDER BY", True),
        ("SEARCH runs USING AUTOMATIC COVERING INDEX (event=?)", True),
    ],
)
def test_scans_of_whole_tables_are_recognised_in_query_plans(step: str, is_so: bool) -> None:
    assert is_dear(step, grows=True) is is_so


# --- none is overlooked ----------------------------------------------------------------------------------------------

FILES = sorted(Path(stepwell.local.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_all_sql_of_a_file_was_executed(file: Path, executed: set[str]) -> None:
    written = [text for text in texts_of(ast.parse(file.read_text())) if _SQL.search(text)]
    patterns = [_pattern(text) for text in written if text not in MIGRATIONS]
    assert [pattern.pattern for pattern in patterns if not any(map(pattern.search, executed))] == []


def texts_of(tree: ast.AST) -> list[str]:
    """The strings of a source file except docstrings; `\\0` stands for a value that is filled in."""
    found = []
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [value.value if isinstance(value, ast.Constant) else "\0" for value in node.values]
            found.append("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner | docs:
            found.append(node.value)
    return found


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, text.split("\0"))), re.DOTALL)
