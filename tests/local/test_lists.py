"""Lists and timelines equal the results of plain queries, with any filters and page size."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from stepwell.api.v1.timeline import Entry, Mark
from stepwell.core.events.users import Person, owner
from stepwell.core.run.run import RunStatus
from stepwell.local.store.users import id_texts, ids_of_user
from stepwell.local.users import LocalUsers
from tests.local.history import FUNCTIONS, NAMES, REPLAYS, TEXTS, History, ids

SEEDS = range(4)


@pytest.fixture(params=SEEDS)
def history(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[History]:
    made = History(tmp_path / "db", request.param)
    yield made
    made.connection.close()


def users_of(path: Path) -> LocalUsers:
    def never(person: Person) -> Any:
        raise AssertionError

    return LocalUsers(path / "db", never)


def plain(history: History, table: str, conditions: dict[str, Any], user: str | None) -> list[str]:
    """Ids, newest first, by a statement without index hints."""
    asked = {sql: value for sql, value in conditions.items() if value is not None}
    names = [] if user is None else ids_of_user(history.connection, user)
    where = ["1", *asked, *([f"user IN ({','.join('?' * len(names))})"] if names else [])]
    sql = f"SELECT id FROM {table} WHERE {' AND '.join(where)} ORDER BY seq DESC"
    return ids(history.connection, sql, (*asked.values(), *names))


def in_pages(read: Any, limit: int, **asked: Any) -> list[Any]:
    items: list[Any] = []
    before = None
    while True:
        page = read(**asked, before=before, limit=limit)
        items += page.items
        if page.next is None:
            return items
        before = page.next


def test_runs_are_listed_by_any_combination_of_filters(history: History, tmp_path: Path) -> None:
    users = users_of(tmp_path)
    asked = itertools.product(
        (None, *FUNCTIONS, "unknown"), (None, *RunStatus), (None, *TEXTS), (None, "e7", "unknown"), (None, *REPLAYS)
    )
    for function, status, user, event, replay in asked:
        filters = {"function": function, "status": status, "user": user, "event": event, "replay": replay}
        conditions = {
            "function = ?": function,
            "status = ?": None if status is None else int(status),
            "event = (SELECT seq FROM events WHERE id = ?)": event,
            "replay = ?": replay,
        }
        expected = plain(history, "runs", conditions, user)
        assert [page.run.id for page in in_pages(users.read_runs, 40, **filters)] == expected, filters


def test_events_are_listed_by_name_user_and_time(history: History, tmp_path: Path) -> None:
    users = users_of(tmp_path)
    (middle,) = history.connection.execute("SELECT accepted_at FROM events WHERE seq = 150").fetchone()
    for name, user in itertools.product((None, *NAMES), (None, *TEXTS)):
        expected = plain(history, "events", {"name = ?": name}, user)
        events = in_pages(users.read_events, 7, name=name, user=user)
        assert [event.event.id for event in events] == expected
        late = in_pages(users.read_events, 7, name=name, user=user, since=middle)
        early = in_pages(users.read_events, 7, name=name, user=user, until=middle)
        assert [item.event.id for item in (*late, *early)] == expected


@pytest.mark.parametrize("limit", [1, 3, 10, 1000])
def test_a_timeline_shows_everything_of_a_user_ordered_by_time(history: History, tmp_path: Path, limit: int) -> None:
    users = users_of(tmp_path)
    for person in history.people:
        marks = [entry.mark for entry in timeline(users, person, limit)]
        assert marks == sorted(everything(history, person), reverse=True)


def timeline(users: LocalUsers, person: Person, limit: int) -> Iterator[Entry]:
    before: Mark | None = None
    while entries := users.timeline(person, before=before, limit=limit):
        yield from entries
        before = entries[-1].mark


def everything(history: History, person: Person) -> list[Mark]:
    """The marks of all that happened to a person, in any order."""
    names = sorted(id_texts(person.ids))
    of_them = f"user IN ({','.join('?' * len(names))})"
    execute = history.connection.execute
    rows = execute(f"SELECT seq, accepted_at, body FROM events WHERE {of_them}", names).fetchall()
    own = {seq: at for seq, at, body in rows if owner(orjson.loads(body)["user"]) in person.ids}
    runs = [row for row in execute(f"SELECT seq, created_at, event FROM runs WHERE {of_them}", names) if row[2] in own]
    marks: list[Mark] = [(at, 0, seq, 0, 0) for seq, at in own.items()]
    for seq, at, _ in runs:
        marks.append((at, 1, seq, 0, 0))
        attempts = execute("SELECT ended_at, step, attempt FROM attempts WHERE run = ?", (seq,))
        marks += [(ended_at, 2, seq, step, attempt) for ended_at, step, attempt in attempts]
    return marks


def test_first_and_last_seen_count_only_the_users_own_events(history: History, tmp_path: Path) -> None:
    users = users_of(tmp_path)
    for person in history.people:
        own = sorted((seq, at) for at, kind, seq, _, _ in everything(history, person) if kind == 0)
        seen = users.seen(person)
        first, last = (own[0][1], own[-1][1]) if own else (person.since, person.since)
        assert (seen.first, seen.last) == (first, last)


def test_the_newest_runs_are_samples_of_all_versions(history: History, tmp_path: Path) -> None:
    sql = "SELECT version, created_at FROM runs WHERE function = 'f' AND replay IS NULL ORDER BY seq DESC LIMIT 50"
    expected = history.connection.execute(sql).fetchall()
    samples = users_of(tmp_path).read_samples("f", 50)
    assert [(sample.version, sample.created_at) for sample in samples] == expected


def test_a_page_filtered_by_user_and_rare_name_reads_no_other_events(tmp_path: Path) -> None:
    rare = [
        steps_of(tmp_path / f"{n}", n, lambda users: users.read_events(user="hot", name="never")) for n in (400, 1600)
    ]
    assert rare[0] == rare[1]


def test_the_cost_of_a_page_does_not_depend_on_the_length_of_the_history(tmp_path: Path) -> None:
    """Counts the steps of SQLite's virtual machine, for histories of two lengths."""
    assert steps_of_pages(tmp_path / "long", 1600) < 1.5 * steps_of_pages(tmp_path / "short", 400)


def steps_of_pages(folder: Path, events: int) -> int:
    """The steps for the first pages of a user with most of the events."""
    return steps_of(folder, events, read_pages)


def read_pages(users: LocalUsers) -> None:
    person = users.find("hot")
    assert person is not None
    users.timeline(person, before=None, limit=10)
    users.seen(person)
    users.read_events(user="hot", name="go", limit=10)
    for status in (None, *RunStatus):
        users.read_runs(user="hot", limit=10)
        users.read_runs(status=status, limit=10)
        users.read_runs(function="f", status=status, limit=10)


def steps_of(folder: Path, events: int, read: Callable[[LocalUsers], object]) -> int:
    """The steps of SQLite's virtual machine for reading something from a history."""
    folder.mkdir()
    history = History(folder / "db", 1, events)
    history.connection.close()
    users, steps = users_of(folder), 0

    def count() -> None:
        nonlocal steps
        steps += 1

    users.connection.set_progress_handler(count, 1)
    read(users)
    return steps
