"""Functions in SQLite: their versions, which one is live, and what is removed with a function that is not live."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepwell.core.definition.definition import parse_definition
from stepwell.core.events.events import Event, event_from
from stepwell.core.routing.versions import Release, Routing, State, paused, resumed
from stepwell.core.run.run import RunStatus
from stepwell.event_types.changes import check_type
from stepwell.event_types.registry import TypeVersion
from stepwell.local.store.functions import GUARD_EVERY_MS, Registered
from stepwell.local.store.store import LocalStore
from stepwell.platform import NewEvent

NOW = 1_780_000_000_000
CODE = {"path": "file://.", "runtime": {"type": "lambda", "handler": "app.f"}}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    store = LocalStore(tmp_path / "db")
    yield store
    store.close()


def definition(id: str = "f", step: str = "a", *, on: dict[str, Any] | None = None, **edge: Any) -> dict[str, Any]:
    steps = {step: {**CODE, "after": [{"step": "$trigger", **edge}]}}
    raw = {"id": id, "triggers": [on or {"event": "go"}], "steps": steps}
    return parse_definition(raw).normalised()


def register(
    store: LocalStore,
    defined: dict[str, Any] | None = None,
    *,
    release: Release | None = None,
    code: str = "c",
    dotenv: dict[str, str] | None = None,
    file: str = "f.json",
    now: int = NOW,
) -> Registered:
    return store.functions.register(
        defined or definition(), {"a": code}, {"a": dotenv or {}}, "" if release else file, now, release
    )


def event_of(name: str = "go", id: str = "e", **fields: Any) -> Event:
    return event_from({"name": name, "id": id, "ts": NOW, **fields})


def starts(store: LocalStore, name: str = "go") -> list[tuple[str, int]]:
    """The versions that an event would start."""
    catalog = store.catalog()
    plans, _ = catalog.starts(event_of(name))
    chosen = [catalog.choose(plan.function_id, event_of(name)) for plan in plans]
    return [(plan.function_id, plan.version) for plan in chosen if plan is not None]


# --- versions --------------------------------------------------------------------------------------------------------


def test_a_registered_function_starts_with_the_next_event(store: LocalStore) -> None:
    assert starts(store) == []
    assert register(store) == Registered("f", 1, is_new=True)
    assert starts(store) == [("f", 1)]
    assert register(store, definition("g", on={"event": "other"})) == Registered("g", 1, is_new=True)
    assert (starts(store), starts(store, "other")) == ([("f", 1)], [("g", 1)])


def test_only_a_changed_definition_makes_a_new_version(store: LocalStore) -> None:
    register(store)
    assert register(store) == Registered("f", 1, is_new=False)
    assert register(store, code="other") == Registered("f", 2, is_new=True), "the code has changed"
    assert register(store, definition(step="b"), code="other") == Registered("f", 3, is_new=True)
    assert register(store) == Registered("f", 4, is_new=True), "as at first, but different from the newest version"
    assert starts(store) == [("f", 4)]


def test_code_and_plans_are_those_of_a_version(store: LocalStore) -> None:
    register(store, code="one")
    register(store, definition(step="b"), code="two")
    functions = store.functions
    assert [functions.code("f", version) for version in (1, 2, 1)] == [{"a": "one"}, {"a": "two"}, {"a": "one"}]
    assert [functions.plan("f", version).steps[0].id for version in (1, 2, 1)] == ["a", "b", "a"]
    assert [functions.plan("f", version).version for version in (1, 2)] == [1, 2]


def test_versions_that_retention_removed_are_not_remembered(store: LocalStore) -> None:
    register(store, code="one")
    register(store, code="two")
    functions = store.functions
    assert functions.use("f", 1) is not None
    functions.code("f", 1)
    store.connection.execute("DELETE FROM versions WHERE version = 1")
    functions.forget([("f", 1)])
    assert functions.use("f", 1) is None
    with pytest.raises(TypeError):
        functions.code("f", 1)


def test_the_current_env_file_applies_to_all_versions(store: LocalStore) -> None:
    register(store, dotenv={"KEY": "one"})
    assert store.functions.dotenv("f", "a") == {"KEY": "one"}
    register(store, dotenv={"KEY": "two"})
    assert store.functions.dotenv("f", "a") == {"KEY": "two"}
    register(store, code="other", dotenv={"KEY": "three"})
    assert store.functions.dotenv("f", "a") == {"KEY": "three"}
    assert (store.functions.dotenv("f", "unknown"), store.functions.dotenv("g", "a")) == ({}, {})


def test_a_push_of_the_live_version_updates_its_env(store: LocalStore) -> None:
    register(store, release=Release(), dotenv={"KEY": "one"})
    assert register(store, release=Release(), dotenv={"KEY": "two"}) == Registered("f", 1, is_new=False)
    assert store.functions.dotenv("f", "a") == {"KEY": "two"}


# --- files and pushes ------------------------------------------------------------------------------------------------


def routing(store: LocalStore) -> Routing:
    found = store.functions.routing("f")
    assert found is not None
    return found


def test_an_unchanged_file_changes_nothing(store: LocalStore) -> None:
    """Otherwise a restart would undo a rollback."""
    register(store, code="one")
    register(store, code="two")
    store.functions.change("f", lambda routing, versions, now: Routing(1, previous=2), NOW)
    assert register(store, code="two") == Registered("f", 1, is_new=False)
    assert routing(store) == Routing(1, previous=2)
    assert register(store, code="one") == Registered("f", 3, is_new=True), "the file has changed"
    assert routing(store) == Routing(3, previous=1)


def test_pushing_the_live_version_does_not_change_a_canary(store: LocalStore) -> None:
    register(store, code="one", release=Release())
    register(store, code="two", release=Release(weight=0.5))
    before = routing(store)
    assert register(store, code="one", release=Release()) == Registered("f", 1, is_new=False)
    assert routing(store) == before
    assert before.canary is not None


def test_an_unchanged_file_does_not_undo_a_push(store: LocalStore) -> None:
    register(store, code="one")
    assert store.functions.live() == {"f": "f.json"}
    assert register(store, code="two", release=Release()) == Registered("f", 2, is_new=True)
    assert store.functions.live() == {}
    assert register(store, code="one") == Registered("f", 2, is_new=False)
    assert (routing(store).live, store.functions.live()) == (2, {}), "the file is the same as before the push"


def test_a_function_may_move_to_another_file(store: LocalStore) -> None:
    register(store)
    register(store, file="moved.json", dotenv={"KEY": "v"})
    assert store.functions.live() == {"f": "moved.json"}
    assert store.functions.dotenv("f", "a") == {"KEY": "v"}


def test_a_function_is_live_again_when_its_file_reappears(store: LocalStore) -> None:
    register(store)
    store.functions.retire(["f", "unknown"], NOW)
    assert (starts(store), store.functions.live()) == ([], {})
    assert register(store) == Registered("f", 1, is_new=False)
    assert starts(store) == [("f", 1)]


def test_a_deleted_function_stays_deleted_while_its_file_is_unchanged(store: LocalStore) -> None:
    register(store)
    store.functions.change("f", lambda routing, versions, now: Routing(None, state=State.DELETED), NOW)
    assert register(store) == Registered("f", 1, is_new=False, is_live=False)
    assert starts(store) == []


# --- what is removed with a function ---------------------------------------------------------------------------------


def count(store: LocalStore, table: str) -> int:
    number: int = store.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    return number


def accept(store: LocalStore, *ids: str) -> list[int]:
    batch = store.batch(NOW)
    batch.put_events([NewEvent(event_of(id=name), (), (), ()) for name in ids])
    batch.flush()
    return [event.position for event in store.events.read(ids).values()]


def test_a_function_that_is_not_live_has_no_ticks_guard_or_held_events(store: LocalStore) -> None:
    register(store, definition(on={"cron": "* * * * *"}), code="one")
    register(store, definition(on={"cron": "* * * * *"}), code="two", release=Release(weight=0.5, guarded=True))
    store.functions.hold("f", accept(store, "e")[0])
    assert [count(store, table) for table in ("schedules", "guards", "kept")] == [1, 1, 1]
    store.functions.retire(["f"], NOW)
    assert [count(store, table) for table in ("schedules", "guards", "kept")] == [0, 0, 0]


def test_a_canary_is_checked_regularly_only_while_it_is_guarded(store: LocalStore) -> None:
    register(store, code="one")
    register(store, code="two", release=Release(weight=0.5, guarded=True))
    assert store.timers.next_due() == NOW + GUARD_EVERY_MS
    assert store.functions.guard(NOW + GUARD_EVERY_MS - 1) == []
    assert store.timers.next_due() == NOW + GUARD_EVERY_MS
    store.functions.guard(NOW + GUARD_EVERY_MS)
    assert store.timers.next_due() == NOW + 2 * GUARD_EVERY_MS
    store.functions.change("f", lambda routing, versions, now: Routing(1), NOW)
    assert store.timers.next_due() is None


def test_events_are_held_while_a_function_is_paused_and_taken_in_order(store: LocalStore) -> None:
    register(store)
    register(store, definition("g"))
    one, two, three = accept(store, "one", "two", "three")
    for position in (two, one, three, two):
        store.functions.hold("f", position)
    store.functions.hold("g", two)
    store.functions.change("f", lambda routing, versions, now: paused(routing, drop=False), NOW)
    assert store.functions.with_held_events() == ["f", "g"]
    assert store.functions.take_held_events("f", 10) == [], "it is paused"
    store.functions.change("f", lambda routing, versions, now: resumed(routing), NOW)
    assert store.functions.take_held_events("f", 2) == ["one", "two"]
    assert store.functions.take_held_events("f", 2) == ["three"]
    assert store.functions.take_held_events("f", 2) == []
    assert store.functions.with_held_events() == ["g"]
    assert store.functions.take_held_events("unknown", 2) == []


def test_an_unknown_function_cannot_be_changed(store: LocalStore) -> None:
    with pytest.raises(KeyError, match="unknown"):
        store.functions.change("unknown", lambda routing, versions, now: routing, NOW)
    assert store.functions.routing("unknown") is None


def test_a_change_gets_the_existing_versions(store: LocalStore) -> None:
    register(store, code="one")
    register(store, code="two")
    seen: list[tuple[int, ...]] = []

    def noting(routing: Routing, versions: Any, now: int) -> Routing:
        seen.append((*sorted(versions), now))
        return routing

    store.functions.change("f", noting, NOW + 1)
    assert seen == [(1, 2, NOW + 1)]


# --- canaries --------------------------------------------------------------------------------------------------------


def chosen(store: LocalStore, count: int = 400) -> list[int]:
    """The versions that many events choose."""
    catalog = store.catalog()
    plans = (catalog.choose("f", event_of(id=f"e{number}", data={"n": number % 2})) for number in range(count))
    return [plan.version for plan in plans if plan is not None]


def test_a_canary_gets_its_share_of_the_events(store: LocalStore) -> None:
    register(store, code="one")
    register(store, definition(step="b"), code="two", release=Release(weight=0.25))
    assert set(chosen(store)) == {1, 2}
    assert 40 < chosen(store).count(2) < 160
    assert routing(store).live == 1


def test_events_with_one_sticky_value_choose_one_version(store: LocalStore) -> None:
    register(store, code="one")
    register(store, definition(step="b"), code="two", release=Release(weight=0.5, sticky="event.data.n"))
    versions = chosen(store)
    assert [len(set(versions[half::2])) for half in (0, 1)] == [1, 1]


def test_a_function_with_a_canary_can_be_paused_too(store: LocalStore) -> None:
    register(store, code="one")
    register(store, definition(step="b"), code="two", release=Release(weight=0.5))
    store.functions.change("f", lambda routing, versions, now: paused(routing, drop=False), NOW)
    assert store.catalog().is_paused("f")
    store.functions.change("f", lambda routing, versions, now: resumed(routing), NOW)
    assert not store.catalog().is_paused("f")


def insert_runs(store: LocalStore, version: int, status: RunStatus, count: int, **columns: str) -> None:
    fields = {"rerun_of": None, "replay": None, **columns}
    sql = (
        'INSERT INTO runs (id, function, version, event, "after", status, active, created_at, ended_at, state,'
        " rerun_of, replay) VALUES (hex(randomblob(13)), 'f', ?, 1, 0, ?, 0, ?, ?, '', ?, ?)"
    )
    row = (version, int(status), NOW, NOW + 10, fields["rerun_of"], fields["replay"])
    store.connection.executemany(sql, [row] * count)


def guarded(store: LocalStore) -> None:
    register(store, code="one")
    register(store, definition(step="b"), code="two", release=Release(weight=0.5, guarded=True))
    insert_runs(store, 1, RunStatus.COMPLETED, 20)


def test_a_failing_guarded_canary_is_rolled_back_and_reported_once(store: LocalStore) -> None:
    guarded(store)
    insert_runs(store, 2, RunStatus.FAILED, 20)
    (event,) = store.functions.guard(NOW + GUARD_EVERY_MS)
    assert (event.name, event.data["version"], event.data["to"]) == ("stepwell/function.rolled_back", 2, 1)
    assert (routing(store).live, routing(store).canary) == (1, None)
    assert set(chosen(store)) == {1}
    assert store.functions.guard(NOW + 2 * GUARD_EVERY_MS) == []


@pytest.mark.parametrize("column", ["rerun_of", "replay"])
def test_reruns_and_replays_do_not_count_for_a_guard(store: LocalStore, column: str) -> None:
    guarded(store)
    insert_runs(store, 2, RunStatus.FAILED, 20, **{column: "x"})
    assert store.functions.guard(NOW + GUARD_EVERY_MS) == []
    assert routing(store).canary is not None


# --- awaited events --------------------------------------------------------------------------------------------------

BY_NUMBER = {"event": "paid", "ttl": "1h", "match": "async.data.n == event.data.n"}


def keys(store: LocalStore) -> int:
    """The number of keys under which an event is stored."""
    return len(store.catalog().keys(event_of("paid", data={"n": 1})))


def open_run(store: LocalStore, version: int) -> None:
    sql = (
        'INSERT INTO runs (id, function, version, event, "after", status, active, created_at, state)'
        " VALUES ('r', 'f', ?, 1, 0, 0, 0, ?, '')"
    )
    store.connection.execute(sql, (version, NOW))


def test_events_awaited_by_the_live_version_have_a_key(store: LocalStore) -> None:
    register(store, definition(on={"event": "go"}, **{"async": BY_NUMBER}))
    assert (store.catalog().is_awaited("paid"), keys(store)) == (True, 1)
    register(store, code="other")
    assert (store.catalog().is_awaited("paid"), keys(store)) == (False, 0)


def test_events_awaited_by_a_canary_have_a_key(store: LocalStore) -> None:
    register(store)
    register(store, definition(**{"async": BY_NUMBER}), code="other", release=Release(weight=0.1))
    assert (store.catalog().is_awaited("paid"), keys(store)) == (True, 1)


def test_events_awaited_by_an_older_version_are_found_after_a_restart(store: LocalStore, tmp_path: Path) -> None:
    register(store, definition(**{"async": BY_NUMBER}))
    open_run(store, 1)
    register(store, code="other")
    assert (store.catalog().is_awaited("paid"), keys(store)) == (True, 1)
    store.functions.retire(["f"], NOW)
    again = LocalStore(tmp_path / "db")
    assert (again.catalog().is_awaited("paid"), keys(again)) == (True, 1)
    assert starts(again) == []
    again.close()


# --- rolled back batches ---------------------------------------------------------------------------------------------


def test_a_rolled_back_batch_leaves_nothing_in_memory(store: LocalStore) -> None:
    register(store, code="one")
    accept(store, "before")
    assert starts(store) == [("f", 1)]
    user = {"id": "ada", "email": "ada@example.org"}
    batch = store.batch(NOW)
    register(store, code="two", dotenv={"KEY": "v"})
    register(store, definition("g"))
    batch.put_events([NewEvent(event_of(id="lost", user=user), (), (), ())])
    assert starts(store) == [("f", 2), ("g", 1)]
    assert store.functions.dotenv("f", "a") == {"KEY": "v"}
    batch.rollback()
    assert starts(store) == [("f", 1)]
    assert store.functions.dotenv("f", "a") == {}
    assert batch.events(["lost"]) == {}
    again = store.batch(NOW)
    (accepted,) = again.put_events([NewEvent(event_of(id="lost", user=user), (), (), ())])
    again.flush()
    assert getattr(accepted, "position", None) == 2, "the position is free again"
    assert count(store, "person_ids") == 2, "the user is written, since the rollback has cleared the cache"


def test_types_of_a_rolled_back_batch_are_not_known(store: LocalStore) -> None:
    batch = store.batch(NOW)
    version = TypeVersion("go", "1", {"type": "object"})
    store.types.register([(version, check_type(version))], NOW)
    assert list(store.types.current().known) == ["go"]
    batch.rollback()
    assert list(store.types.current().known) == []
