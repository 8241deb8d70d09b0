"""Queries for the API: pages, newest first, filters, and details of events and runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepwell.core.events.events import Event, event_from
from stepwell.core.run.messages import AttemptEnded, CancelRequested, RunStarted
from stepwell.core.run.run import RunStatus, new_run
from stepwell.local.queries.queries import Queries
from stepwell.platform import NewEvent, Route, RunRecord
from stepwell.reader import Page
from tests.local.test_stored_runs import CODE, FREE, NOW, OK, START, Runs


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    runs = Runs(tmp_path)
    yield runs
    runs.store.close()


@pytest.fixture
def queries(runs: Runs) -> Queries:
    return Queries(runs.path)


def put(runs: Runs, id: str, name: str = "go", at: int = NOW, replay: str | None = None, **fields: Any) -> Event:
    batch = runs.store.batch(at)
    event = event_from({"name": name, "id": id, "ts": at, **fields})
    batch.put_events([NewEvent(event, (), (), (), replay=replay)])
    batch.flush()
    return batch.events([id])[id]


def ids(page: Page[Any]) -> list[str]:
    return [item.event.id if hasattr(item, "event") else item.run.id for item in page.items]


# --- events ----------------------------------------------------------------------------------------------------------


def test_events_come_in_pages_newest_first(runs: Runs, queries: Queries) -> None:
    for number in range(5):
        put(runs, f"e{number}")
    whole = queries.read_events(limit=5)
    assert (ids(whole), whole.next) == (["e4", "e3", "e2", "e1", "e0"], None)
    first = queries.read_events(limit=2)
    second = queries.read_events(limit=2, before=first.next)
    third = queries.read_events(limit=2, before=second.next)
    assert [ids(page) for page in (first, second, third)] == [["e4", "e3"], ["e2", "e1"], ["e0"]]
    assert third.next is None


def test_events_are_chosen_by_name_user_and_time(runs: Runs, queries: Queries) -> None:
    put(runs, "one", at=NOW)
    put(runs, "two", "other", at=NOW + 1, user={"id": "ada"})
    put(runs, "three", at=NOW + 2, user={"id": "ada"})
    assert ids(queries.read_events(name="go")) == ["three", "one"]
    assert ids(queries.read_events(user="ada")) == ["three", "two"]
    assert ids(queries.read_events(user="ada", name="other")) == ["two"]
    assert ids(queries.read_events(since=NOW + 1)) == ["three", "two"]
    assert ids(queries.read_events(until=NOW + 1)) == ["one"], "before that time"
    assert ids(queries.read_events(since=NOW + 1, until=NOW + 2)) == ["two"]
    assert ids(queries.read_events(user="nobody")) == []


def test_an_event_is_read_by_its_id(runs: Runs, queries: Queries) -> None:
    put(runs, "one", data={"n": 1}, at=NOW + 7)
    found = queries.read_event("one")
    assert found is not None
    assert (found.event.data, found.accepted_at, found.replay) == ({"n": 1}, NOW + 7, None)
    assert queries.read_event("unknown") is None


def test_the_tail_shows_the_newest_events_with_their_runs_oldest_first(runs: Runs, queries: Queries) -> None:
    plan = runs.deploy()
    runs.add(plan, "r", RunStarted())
    for number in range(3):
        put(runs, f"e{number}")
    replayed = put(runs, "replayed", replay="rp")
    tail = queries.read_tail(0, 10)
    assert [(detail.event.id, starts) for detail, starts in tail] == [
        ("e", {"f": "r"}),
        ("e0", {}),
        ("e1", {}),
        ("e2", {}),
        ("replayed", {}),
    ]
    assert [detail.event.id for detail, _ in queries.read_tail(0, 2)] == ["e2", "replayed"]
    assert queries.read_tail(replayed.position, 10) == []


def test_the_tail_shows_no_reruns_or_replays(runs: Runs, queries: Queries) -> None:
    plan = runs.deploy()
    for run_id, fields in (("rerun", {"rerun_of": "r"}), ("replay", {"replay": "rp"})):
        batch = runs.store.batch(NOW)
        event = batch.events(["e"])["e"]
        batch.add(RunRecord(new_run(run_id, plan, NOW), plan, event, event.position, **fields))
        runs.commit(batch, run_id, (RunStarted(),), FREE)
    assert [starts for _, starts in queries.read_tail(0, 10)] == [{}]


def test_the_functions_that_an_event_is_held_for_are_listed(runs: Runs, queries: Queries) -> None:
    event = put(runs, "one")
    assert queries.functions_holding(event.position) == []
    for function in ("g", "f"):
        runs.store.functions.hold(function, event.position)
    assert queries.functions_holding(event.position) == ["f", "g"]


def test_an_event_is_unrouted_until_its_routing_is_finished(runs: Runs, queries: Queries) -> None:
    event = put(runs, "one")
    assert not queries.is_unrouted(event.name, event.position)
    runs.store.unrouted.leave([Route(event, ("f",))])
    assert queries.is_unrouted(event.name, event.position)
    runs.store.unrouted.take(1)
    assert not queries.is_unrouted(event.name, event.position)


# --- runs ------------------------------------------------------------------------------------------------------------


def test_runs_come_in_pages_newest_first(runs: Runs, queries: Queries) -> None:
    plan = runs.deploy()
    for number in range(5):
        runs.add(plan, f"r{number}", RunStarted())
    whole = queries.read_runs(limit=5)
    assert (ids(whole), whole.next) == (["r4", "r3", "r2", "r1", "r0"], None)
    first = queries.read_runs(limit=3)
    second = queries.read_runs(limit=3, before=first.next)
    assert [ids(page) for page in (first, second)] == [["r4", "r3", "r2"], ["r1", "r0"]]
    assert second.next is None


def test_runs_are_chosen_by_status_function_and_event(runs: Runs, queries: Queries) -> None:
    plan = runs.deploy()
    for run_id in ("open", "done", "cancelled"):
        runs.add(plan, run_id, RunStarted())
    runs.fold("done", AttemptEnded(0, 1, OK))
    runs.fold("cancelled", CancelRequested())
    assert ids(queries.read_runs(status=RunStatus.RUNNING)) == ["open"]
    assert ids(queries.read_runs(status=RunStatus.COMPLETED)) == ["done"]
    assert ids(queries.read_runs(status=RunStatus.FAILED)) == []
    assert len(ids(queries.read_runs(function="f"))) == len(ids(queries.read_runs(event="e"))) == 3
    assert ids(queries.read_runs(function="g")) == ids(queries.read_runs(event="unknown")) == []


def test_texts_of_runs_are_current_and_in_list_order(runs: Runs, queries: Queries) -> None:
    plan = runs.deploy()
    for run_id in ("one", "two", "three"):
        runs.add(plan, run_id, RunStarted())
    runs.fold("two", AttemptEnded(0, 1, OK))
    asked: list[str] = []

    def view(detail: Any) -> bytes:
        asked.append(detail.run.id)
        return f"{detail.run.id} {detail.run.status.name}".encode()

    expected = [b"three RUNNING", b"two COMPLETED", b"one RUNNING"]
    assert list(queries.read_run_texts(view).items) == expected
    assert list(queries.read_run_texts(view).items) == expected
    assert asked.count("two") == 1, "an ended run is encoded once"
    runs.fold("one", AttemptEnded(0, 1, OK))
    assert list(queries.read_run_texts(view).items) == [b"three RUNNING", b"two COMPLETED", b"one COMPLETED"]


def test_a_run_is_read_with_its_attempts(runs: Runs, queries: Queries) -> None:
    plan = runs.deploy(a={**CODE, "after": START}, b={**CODE, "after": [{"step": "a"}]})
    runs.add(plan, "r", RunStarted())
    runs.fold("r", AttemptEnded(0, 1, OK))
    found = queries.read_run("r")
    assert found is not None
    assert [(row.step, row.attempt, row.status, row.output) for row in found.attempts] == [(0, 1, "completed", b"1")]
    assert (found.event_id, found.mismatches) == ("e", {})
    assert queries.read_run("unknown") is None


def test_runs_with_open_approvals_come_in_pages_newest_first(runs: Runs, queries: Queries) -> None:
    approval = {"runtime": {"type": "approval", "message": "Really?"}, "timeout": "1h", "after": START}
    plan = runs.deploy(a=approval)
    for run_id in ("one", "two", "three"):
        runs.add(plan, run_id, RunStarted())
    runs.fold("two", CancelRequested())
    whole = queries.read_asking(None, 2)
    assert (ids(whole), whole.next) == (["three", "one"], None)
    assert [detail.asked for detail in whole.items] == [{0: "Really?"}, {0: "Really?"}]
    first = queries.read_asking(None, 1)
    assert ids(first) == ["three"]
    assert ids(queries.read_asking(first.next, 1)) == ["one"]


@pytest.mark.parametrize(("late_ms", "is_shown"), [(3_599_999, True), (3_600_000, False)])
def test_the_match_error_of_the_newest_event_is_shown(
    runs: Runs, queries: Queries, late_ms: int, is_shown: bool
) -> None:
    wait = {"event": "paid", "ttl": "1h", "match": "async.data.n > 1"}
    plan = runs.deploy(a={**CODE, "after": [{"step": "$trigger", "async": wait}]})
    put(runs, "before", "paid")
    runs.add(plan, "r", RunStarted())
    put(runs, "good", "paid", data={"n": 0})
    put(runs, "replayed", "paid", replay="rp")
    found = queries.read_run("r")
    assert found is not None
    assert found.mismatches == {}
    put(runs, "bad", "paid", at=NOW + late_ms)
    found = queries.read_run("r")
    assert found is not None
    assert list(found.mismatches) == ([0] if is_shown else [])
