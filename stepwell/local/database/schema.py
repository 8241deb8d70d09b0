"""The database's tables, as a list of migrations. One file in WAL mode; `user_version` counts the migrations.

This module is longer than others: most of it is one list of SQL scripts, and each change of the tables appends to it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from stepwell.local.system.files import make_file

MIGRATIONS = (
    """
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY,          -- the order of acceptance
        id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        user TEXT,
        accepted_at INTEGER NOT NULL,
        body BLOB NOT NULL,
        misses BLOB                       -- functions that it named but did not start, JSON
    );
    CREATE INDEX events_name ON events (name);
    CREATE INDEX events_user ON events (user) WHERE user IS NOT NULL;

    CREATE TABLE event_keys (key BLOB, event INTEGER, PRIMARY KEY (key, event)) WITHOUT ROWID;
    CREATE INDEX event_keys_event ON event_keys (event);

    CREATE TABLE functions (
        id TEXT PRIMARY KEY,
        live INTEGER,                     -- the version that new runs use; NULL: none
        file TEXT NOT NULL,
        dotenv BLOB NOT NULL              -- values of .env by step; not part of a version's hash
    ) WITHOUT ROWID;
    CREATE TABLE versions (
        function TEXT, version INTEGER, hash TEXT NOT NULL, created_at INTEGER NOT NULL,
        definition BLOB NOT NULL,         -- normalised
        code BLOB NOT NULL,               -- hash of the code by step
        PRIMARY KEY (function, version)
    ) WITHOUT ROWID;

    CREATE TABLE runs (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        function TEXT NOT NULL,
        version INTEGER NOT NULL,
        event INTEGER NOT NULL,           -- events.seq
        user TEXT,
        "after" INTEGER NOT NULL,         -- events after this seq may satisfy the run's waits
        rerun_of TEXT,
        status INTEGER NOT NULL,
        active INTEGER NOT NULL,          -- has attempts that are queued or running
        created_at INTEGER NOT NULL,
        ended_at INTEGER,
        state BLOB NOT NULL
    );
    CREATE INDEX runs_function ON runs (function);
    CREATE INDEX runs_event ON runs (event);
    CREATE INDEX runs_user ON runs (user) WHERE user IS NOT NULL;
    CREATE INDEX runs_status ON runs (status) WHERE status IN (0, 2, 3);
    CREATE INDEX runs_active ON runs (active) WHERE active = 1;

    CREATE TABLE attempts (
        run INTEGER, step INTEGER, attempt INTEGER,
        status TEXT NOT NULL, queued_at INTEGER NOT NULL, started_at INTEGER, ended_at INTEGER NOT NULL,
        output BLOB, error BLOB,
        PRIMARY KEY (run, step, attempt)
    ) WITHOUT ROWID;
    CREATE TABLE logs (
        run INTEGER, step INTEGER, attempt INTEGER, seq INTEGER,
        at INTEGER NOT NULL, stream TEXT NOT NULL, text BLOB NOT NULL,
        PRIMARY KEY (run, step, attempt, seq)
    ) WITHOUT ROWID;

    CREATE TABLE timers (
        run INTEGER, kind INTEGER, step_or_pause INTEGER, attempt INTEGER, due_at INTEGER NOT NULL,
        PRIMARY KEY (run, kind, step_or_pause, attempt)
    ) WITHOUT ROWID;
    CREATE INDEX timers_due ON timers (due_at);
    CREATE TABLE waits (
        event TEXT, key BLOB, run INTEGER, pause INTEGER, deadline INTEGER NOT NULL,
        PRIMARY KEY (event, key, run, pause)
    ) WITHOUT ROWID;
    CREATE TABLE schedules (
        function TEXT, cron TEXT, timezone TEXT, next_at INTEGER NOT NULL,
        PRIMARY KEY (function, cron, timezone)
    ) WITHOUT ROWID;

    CREATE TABLE keys (
        id TEXT PRIMARY KEY, hash BLOB NOT NULL UNIQUE, scope TEXT NOT NULL, name TEXT NOT NULL,
        created_at INTEGER NOT NULL, revoked_at INTEGER
    ) WITHOUT ROWID;
    CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    """,
    """
    ALTER TABLE events ADD COLUMN replay TEXT;  -- stored for this replay only: starts nothing else
    ALTER TABLE runs ADD COLUMN replay TEXT;    -- the replay that made the run
    CREATE INDEX runs_replay ON runs (replay) WHERE replay IS NOT NULL;
    """,
    """
    ALTER TABLE events ADD COLUMN invalid BLOB;  -- errors of validation against the type, JSON
    CREATE TABLE types (name TEXT PRIMARY KEY, policy TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE type_versions (
        name TEXT, version TEXT, number INTEGER NOT NULL,  -- in the order of their registration
        created_at INTEGER NOT NULL, schema BLOB NOT NULL,
        deepest INTEGER, is_whole INTEGER NOT NULL,        -- as event_types.validation.Checked
        PRIMARY KEY (name, version)
    ) WITHOUT ROWID;
    CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    """,
    """
    CREATE TABLE people (seq INTEGER PRIMARY KEY, record BLOB NOT NULL);
    CREATE TABLE person_ids (
        kind INTEGER, text TEXT, person INTEGER NOT NULL,  -- people.seq
        PRIMARY KEY (kind, text)
    ) WITHOUT ROWID;
    CREATE INDEX person_ids_text ON person_ids (text);
    """,
    """
    CREATE TABLE once (                   -- the run that holds a value of the function's `idempotency`
        function TEXT, value BLOB, run TEXT NOT NULL, until INTEGER NOT NULL,
        PRIMARY KEY (function, value)
    ) WITHOUT ROWID;
    CREATE INDEX once_until ON once (until);
    """,
    """
    ALTER TABLE functions ADD COLUMN routing TEXT;  -- JSON: all of it except `live`; NULL: default routing
    ALTER TABLE functions ADD COLUMN disk TEXT;     -- hash of the files that last went live
    ALTER TABLE versions ADD COLUMN author TEXT NOT NULL DEFAULT '';
    ALTER TABLE versions ADD COLUMN message TEXT NOT NULL DEFAULT '';
    ALTER TABLE schedules ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE kept (                   -- events that start a paused function once it is resumed
        function TEXT, event INTEGER, PRIMARY KEY (function, event)
    ) WITHOUT ROWID;
    CREATE INDEX kept_event ON kept (event);
    CREATE TABLE guards (                 -- functions whose canary is checked regularly
        function TEXT PRIMARY KEY, next_at INTEGER NOT NULL
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE INDEX timers_approvals ON timers (run) WHERE kind = 4;  -- one for each open approval
    """,
    """
    CREATE TABLE webhooks (               -- file: the source of the rule; NULL: it was put by the API
        name TEXT PRIMARY KEY, rule BLOB NOT NULL, file TEXT, changed_at INTEGER NOT NULL
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE types ADD COLUMN chosen TEXT;  -- the version for events without v; NULL: the newest
    """,
    """
    CREATE TABLE log_files (              -- the file of a long log, which continues the rows in `logs`
        run INTEGER, step INTEGER, attempt INTEGER, name TEXT NOT NULL,
        PRIMARY KEY (run, step, attempt)
    ) WITHOUT ROWID;
    """,
    """
    -- SQLite uses a partial index only for statements that repeat its condition word for word: literals, no `?`.
    DROP INDEX runs_status;
    DROP INDEX runs_function;
    CREATE INDEX runs_version ON runs (function, version);
    CREATE INDEX runs_open_version ON runs (function, version) WHERE status = 0;
    CREATE INDEX runs_open_after ON runs ("after") WHERE status = 0;
    CREATE INDEX runs_status ON runs (status) WHERE status != 1;
    CREATE INDEX runs_function_status ON runs (function, status) WHERE status > 1;
    ALTER TABLE attempts ADD COLUMN user TEXT;  -- the run's user: finds the user's steps by time
    UPDATE attempts SET user = (SELECT user FROM runs WHERE runs.seq = attempts.run)
        WHERE run IN (SELECT seq FROM runs WHERE user IS NOT NULL);
    CREATE INDEX attempts_user ON attempts (user, ended_at) WHERE user IS NOT NULL;
    """,
    """
    ALTER TABLE versions ADD COLUMN indexes BLOB;  -- JSON: how each trigger is found; NULL: not known yet
    CREATE TABLE trigger_tables (         -- triggers that events name and do not start; see `events.misses`
        id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, content BLOB NOT NULL,
        newest INTEGER NOT NULL           -- events.seq: the newest event that may name them
    );
    CREATE INDEX trigger_tables_newest ON trigger_tables (newest);
    """,
    """
    CREATE TABLE unrouted (               -- accepted events that have yet to start runs or wake waits
        name TEXT, event INTEGER,         -- events.seq
        starts BLOB,                      -- functions that it has yet to start, JSON
        is_awaited INTEGER NOT NULL,      -- whether waits are still to be looked up, after this place:
        key BLOB, run INTEGER, pause INTEGER,
        PRIMARY KEY (name, event)
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE waits ADD COLUMN function TEXT;
    ALTER TABLE waits ADD COLUMN version INTEGER;
    ALTER TABLE waits ADD COLUMN known BLOB;  -- JSON, for waits without key: the run's values that `match` refers to
    UPDATE waits SET (function, version) = (SELECT function, version FROM runs WHERE runs.seq = waits.run);
    CREATE INDEX waits_by_name ON waits (function) WHERE key = x'';
    """,
    """
    -- Times must grow with row numbers. Clocks that were set back by less than a second had made exceptions.
    UPDATE events SET accepted_at = grown.at
        FROM (SELECT seq AS number, max(accepted_at) OVER (ORDER BY seq) AS at FROM events) AS grown
        WHERE seq = grown.number AND accepted_at < grown.at;
    UPDATE runs SET created_at = grown.at
        FROM (SELECT seq AS number, max(created_at) OVER (ORDER BY seq) AS at FROM runs) AS grown
        WHERE seq = grown.number AND created_at < grown.at;
    """,
    """
    -- Long outputs and errors of attempts; `attempts` then contains an empty text. Older rows are not changed.
    CREATE TABLE long_texts (place INTEGER PRIMARY KEY, text BLOB NOT NULL);
    """,
    """
    CREATE TABLE run_parts (              -- parts of the state of a long open run that `runs.state` leaves out
        run INTEGER, part INTEGER, states BLOB NOT NULL,
        PRIMARY KEY (run, part)
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE versions ADD COLUMN head BLOB;  -- JSON: what starts it and what it waits for; NULL: not known yet
    ALTER TABLE versions DROP COLUMN indexes;   -- now part of `head`
    """,
    """
    CREATE TABLE accepted_attempts (      -- attempts that another system executes and has accepted
        run_id TEXT NOT NULL,
        step INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        PRIMARY KEY (run_id, step, attempt)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE sources (                -- file: where it comes from; NULL: it was put by the API
        name TEXT PRIMARY KEY, definition BLOB NOT NULL, file TEXT, changed_at INTEGER NOT NULL,
        is_paused INTEGER NOT NULL,
        identity TEXT NOT NULL,           -- names this database's readers at brokers
        replay BLOB                       -- the latest replay, JSON
    ) WITHOUT ROWID;
    CREATE TABLE quarantine (             -- records of sources that made no event
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        source TEXT NOT NULL, record TEXT NOT NULL, at INTEGER NOT NULL,
        kind TEXT NOT NULL, field TEXT NOT NULL, why TEXT NOT NULL, content BLOB NOT NULL,
        UNIQUE (source, record)
    );
    CREATE INDEX quarantine_at ON quarantine (at);
    CREATE INDEX quarantine_source ON quarantine (source, seq);
    """,
    """
    CREATE TABLE celery_calls (           -- callers of Celery tasks that wait for results
        event TEXT PRIMARY KEY,           -- events.id
        source TEXT NOT NULL, content BLOB NOT NULL
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE faktory_results (        -- results that Faktory workers have sent, until they end the attempts
        run TEXT, step INTEGER, attempt INTEGER,
        body BLOB NOT NULL,               -- JSON
        PRIMARY KEY (run, step, attempt)
    ) WITHOUT ROWID;
    CREATE TABLE faktory_scheduled (      -- events of jobs that Faktory clients have pushed for later
        id TEXT PRIMARY KEY,              -- of the event
        due_at INTEGER NOT NULL, body BLOB NOT NULL
    );
    CREATE INDEX faktory_scheduled_due ON faktory_scheduled (due_at);
    CREATE TABLE faktory_paused (name TEXT PRIMARY KEY) WITHOUT ROWID;  -- queues from which workers get no jobs
    """,
    """
    CREATE TABLE rate_starts (            -- the latest starts that count for a function's `rate_limit`
        function TEXT, key BLOB, number INTEGER,  -- in the order of the starts
        at INTEGER NOT NULL, until INTEGER NOT NULL, run TEXT NOT NULL,
        PRIMARY KEY (function, key, number)
    ) WITHOUT ROWID;
    CREATE INDEX rate_starts_until ON rate_starts (until);
    """,
    """
    CREATE TABLE limits (id TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;  -- settings of limits, JSON
    CREATE TABLE throttles (
        limit_id TEXT, key BLOB,
        theoretical REAL NOT NULL,        -- the time of the next start without a burst, in ms since the epoch
        interval_ms REAL NOT NULL,        -- of the rate with which it was computed
        PRIMARY KEY (limit_id, key)
    ) WITHOUT ROWID;
    CREATE INDEX throttles_over ON throttles (theoretical);
    CREATE TABLE limit_waits (
        run_id TEXT, step INTEGER,        -- step -1: the start of the run
        lane INTEGER NOT NULL, rank INTEGER NOT NULL, run_order INTEGER NOT NULL, since INTEGER NOT NULL,
        PRIMARY KEY (run_id, step)
    ) WITHOUT ROWID;
    CREATE INDEX limit_waits_lane ON limit_waits (lane, rank, run_order);
    CREATE TABLE limit_lanes (
        lane INTEGER PRIMARY KEY, limit_id TEXT NOT NULL, key BLOB NOT NULL,
        text TEXT NOT NULL                -- the key's value, JSON
    );
    """,
    """
    CREATE TABLE singletons (             -- the run that holds a key of the function's `singleton`
        function TEXT, key BLOB, run TEXT NOT NULL, position INTEGER NOT NULL,
        PRIMARY KEY (function, key)
    ) WITHOUT ROWID;
    CREATE INDEX singletons_run ON singletons (run);
    """,
)


WAL_BYTES = 64 * 1024 * 1024  # size to which the write-ahead log's file is truncated when it restarts
WAL_PAGES = 8000  # pages after which a commit checkpoints the log, while `wal.py` does not
_WRITE_KB, _READ_KB = 65_536, 16_384  # page cache of a connection; the system caches the file for all of them
_BUSY_S = 5  # how long a connection waits for a lock


class BadDatabase(Exception):
    """The file cannot be used as a database. The message contains the reason and what to do."""


class DatabaseTooNew(BadDatabase):
    """The database was written by a newer Stepwell: upgrade, or use another --db file."""


def connect(path: Path | str, *, durable: bool = False, read_only: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode. Raises BadDatabase.

    With `durable`, every commit is synced to disk and survives a power cut. Otherwise a commit survives the death of
    the process."""
    try:
        return _connect(path, durable, read_only)
    except sqlite3.DatabaseError as error:
        raise BadDatabase(f"{path} cannot be used as a database: {error}; name another file with --db") from None


def _connect(path: Path | str, durable: bool, read_only: bool) -> sqlite3.Connection:
    if read_only:
        uri = f"file:{quote(str(path))}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    else:
        make_file(Path(path))
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_S * 1000}")
    connection.execute(f"PRAGMA cache_size = -{_READ_KB if read_only else _WRITE_KB}")
    if not read_only:
        _use_wal(connection)
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        connection.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
    return connection


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switches to WAL mode, with retries.

    SQLite does not always wait here: of two connections that change the mode of a new file, one is refused."""
    deadline = time.monotonic() + _BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def migrate(connection: sqlite3.Connection, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Brings the tables up to date; safe if several processes do so at once. Raises DatabaseTooNew.

    Takes no lock if there is nothing to do: the calling thread may be in the middle of a batch."""
    if connection.execute("PRAGMA user_version").fetchone() == (len(migrations),):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        (done,) = connection.execute("PRAGMA user_version").fetchone()
        if done > len(migrations):
            raise DatabaseTooNew(
                f"the database has schema version {done}, this Stepwell supports {len(migrations)}; upgrade Stepwell"
            )
        for script in migrations[done:]:
            for statement in _statements(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def forget_statistics(connection: sqlite3.Connection) -> None:
    """Deletes statistics that ANALYZE stored in this file, as older versions did when they ended.

    A table that was small then may be large now, and SQLite would still scan it.
    https://www.sqlite.org/fileformat2.html#the_sqlite_stat1_table"""
    tables = connection.execute("SELECT name FROM sqlite_schema WHERE name GLOB 'sqlite_stat[0-9]'").fetchall()
    for (table,) in tables:
        connection.execute(f"DROP TABLE {table}")


def _statements(script: str) -> Iterator[str]:
    """The single statements of a script. `executescript` is no alternative: it commits before it begins."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
