"""Runs in SQLite: which ones a server loads when it starts, and which ones it keeps in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepwell.core.definition.definition import parse_definition
from stepwell.core.events.events import event_from
from stepwell.core.plan import Plan
from stepwell.core.run.messages import (
    AttemptEnded,
    AttemptStarted,
    CancelRequested,
    Error,
    EventArrived,
    Fact,
    Outcome,
    RetryDue,
    RunStarted,
)
from stepwell.core.run.run import new_run
from stepwell.engine.fold import fold
from stepwell.local.store import run_cache
from stepwell.local.store.batch import LocalBatch
from stepwell.local.store.store import LocalStore
from stepwell.platform import FreeSlots, NewEvent, RunFact, RunRecord, Transition

NOW = 1_780_000_000_000
FREE, NONE = FreeSlots(9, 9), FreeSlots(0, 0)
CODE = {"path": "file://.", "runtime": {"type": "lambda", "handler": "app.f"}}
START = [{"step": "$trigger"}]
WAIT = [{"step": "$trigger", "async": {"event": "paid", "ttl": "1h"}}]
OK, FAILED = Outcome(b"1"), Outcome(error=Error("exit", "exit code 1"), retryable=False)


class Runs:
    """A store with one function, whose runs are advanced by facts."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "db"
        self.store = LocalStore(self.path)

    def deploy(self, **steps: Any) -> Plan:
        raw = {"id": "f", "triggers": [{"event": "go"}], "steps": steps or {"a": {**CODE, "after": START}}}
        batch = self.store.batch(NOW)
        self.store.functions.register(parse_definition(raw).normalised(), {}, {}, "f.json", NOW)
        batch.put_events([NewEvent(event_from({"name": "go", "id": "e", "ts": NOW}), (), (), ())])
        batch.flush()
        return self.store.functions.plan("f", 1)

    def add(self, plan: Plan, run_id: str, *facts: Fact, slots: FreeSlots = FREE) -> RunRecord:
        batch = self.store.batch(NOW)
        event = batch.events(["e"])["e"]
        batch.add(RunRecord(new_run(run_id, plan, NOW), plan, event, event.position))
        return self.commit(batch, run_id, facts, slots)

    def fold(self, run_id: str, *facts: Fact, slots: FreeSlots = FREE) -> RunRecord:
        return self.commit(self.store.batch(NOW), run_id, facts, slots)

    @staticmethod
    def commit(batch: LocalBatch, run_id: str, facts: tuple[Fact, ...], slots: FreeSlots) -> RunRecord:
        record = batch.load([run_id])[run_id]
        done = fold(record, [RunFact(run_id, fact) for fact in facts], NOW, slots)
        batch.commit([done if facts else Transition(record, record, (), (), ())])
        batch.flush()
        return done.record

    def reopen(self) -> None:
        self.store.close()
        self.store = LocalStore(self.path)


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    runs = Runs(tmp_path)
    yield runs
    runs.store.close()


# --- loaded at the start ---------------------------------------------------------------------------------------------


def test_a_run_that_has_not_begun_is_active_until_it_has_ended(runs: Runs) -> None:
    plan = runs.deploy()
    runs.add(plan, "r")
    assert runs.store.active() == ["r"], "it was stored, but the start could not be folded"
    runs.fold("r", RunStarted(), slots=NONE)
    assert runs.store.active() == ["r"], "its attempt is queued"
    runs.fold("r", AttemptStarted(0, 1))
    assert runs.store.active() == ["r"]
    runs.fold("r", AttemptEnded(0, 1, OK))
    assert runs.store.active() == []


def test_a_waiting_run_is_active_after_the_event(runs: Runs) -> None:
    plan = runs.deploy(a={**CODE, "after": WAIT})
    runs.add(plan, "r", RunStarted())
    assert runs.store.active() == []
    runs.reopen()
    runs.fold("r", EventArrived(0, "e"))
    assert runs.store.active() == ["r"], "otherwise a crash would lose the attempt forever"


def test_a_run_that_waits_for_a_retry_is_not_active(runs: Runs) -> None:
    plan = runs.deploy(a={**CODE, "after": START, "retries": {"attempts": 2}})
    runs.add(plan, "r", RunStarted())
    runs.fold("r", AttemptEnded(0, 1, Outcome(error=Error("exit", "1"))))
    assert runs.store.active() == []
    runs.fold("r", RetryDue(0, 1))
    assert runs.store.active() == ["r"]


def test_a_failed_run_is_active_while_an_attempt_is_running(runs: Runs) -> None:
    plan = runs.deploy(a={**CODE, "after": START}, b={**CODE, "after": START})
    runs.add(plan, "r", RunStarted())
    runs.fold("r", AttemptEnded(0, 1, FAILED))
    assert runs.store.active() == ["r"]
    runs.fold("r", AttemptEnded(1, 1, OK))
    assert runs.store.active() == []


def test_a_run_with_only_open_approvals_is_not_active(runs: Runs) -> None:
    approval = {"runtime": {"type": "approval", "message": "Really?"}, "timeout": "1h", "after": START}
    plan = runs.deploy(a=approval, b={**CODE, "after": START})
    runs.add(plan, "r", RunStarted())
    assert runs.store.active() == ["r"]
    runs.fold("r", AttemptEnded(1, 1, OK))
    assert runs.store.active() == []


def test_active_runs_come_in_the_order_in_which_they_were_made(runs: Runs) -> None:
    plan = runs.deploy()
    for run_id in ("c", "a", "b"):
        runs.add(plan, run_id, RunStarted())
    runs.fold("a", CancelRequested())
    assert runs.store.active() == ["c", "b"]


def row(runs: Runs, run_id: str = "r") -> tuple[Any, ...]:
    found: tuple[Any, ...] = runs.store.connection.execute(
        "SELECT status, active, ended_at FROM runs WHERE id = ?", (run_id,)
    ).fetchone()
    return found


def test_a_run_cancelled_while_waiting_is_listed_as_ended(runs: Runs) -> None:
    plan = runs.deploy(a={**CODE, "after": WAIT})
    runs.add(plan, "r", RunStarted())
    assert row(runs) == (0, 0, None)
    runs.fold("r", CancelRequested())
    assert row(runs) == (3, 0, NOW)


# --- what is in memory -----------------------------------------------------------------------------------------------


def test_later_runs_queue_behind_earlier_ones_also_after_a_restart(runs: Runs) -> None:
    plan = runs.deploy()
    orders = [runs.add(plan, run_id, RunStarted()).order for run_id in ("one", "two")]
    runs.reopen()
    found = runs.store.load(["two", "one"])
    assert [found["one"].order, found["two"].order] == orders == sorted(orders)
    assert runs.add(plan, "three", RunStarted()).order > orders[1]


def test_only_runs_with_running_attempts_stay_in_memory(runs: Runs) -> None:
    plan = runs.deploy(a={**CODE, "after": START, "retries": {"attempts": 2}})
    busy, waiting = runs.add(plan, "busy", RunStarted()), runs.add(plan, "waiting", RunStarted())
    waiting = runs.fold("waiting", AttemptEnded(0, 1, Outcome(error=Error("exit", "1"))))
    assert runs.store.load(["busy"])["busy"] is busy
    assert runs.store.load(["waiting"])["waiting"] is not waiting
    assert runs.store.load(["waiting"])["waiting"].run == waiting.run
    assert runs.store.load(["unknown"]) == {}


def test_of_too_many_runs_the_most_recently_used_stay_in_memory(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = runs.deploy()
    first = {run_id: runs.add(plan, run_id, RunStarted()) for run_id in ("a", "b", "c")}
    runs.store.load(["a"])
    monkeypatch.setattr(run_cache, "_MOST_RUNS", 2)
    runs.store.cache.evict(())
    found = runs.store.load(["a", "b", "c"])
    assert [found[run_id] is first[run_id] for run_id in ("a", "b", "c")] == [True, False, True]


def test_runs_are_dropped_oldest_first_if_they_take_too_many_bytes(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = runs.deploy(a={**CODE, "after": START}, b={**CODE, "after": [{"step": "a"}]})
    large = Outcome(b'"' + b"x" * 98 + b'"')
    first = {}
    for run_id in ("a", "b", "c"):
        runs.add(plan, run_id, RunStarted())
        first[run_id] = runs.fold(run_id, AttemptEnded(0, 1, large))
    monkeypatch.setattr(run_cache, "_MOST_BYTES", 200)
    runs.store.cache.evict(())
    found = runs.store.load(["a", "b", "c"])
    assert [found[run_id] is first[run_id] for run_id in ("a", "b", "c")] == [False, True, True]
    runs.store.cache.evict(())
    assert runs.store.load(["b"])["b"] is first["b"], "dropped runs are not counted"


def test_bytes_of_runs_that_were_read_from_the_database_are_counted(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = runs.deploy(a={**CODE, "after": START}, b={**CODE, "after": [{"step": "a"}]})
    for run_id in ("a", "b", "c"):
        runs.add(plan, run_id, RunStarted())
        runs.fold(run_id, AttemptEnded(0, 1, Outcome(b'"' + b"x" * 98 + b'"')))
    runs.reopen()
    first = dict(runs.store.load(["a", "b", "c"]))
    monkeypatch.setattr(run_cache, "_MOST_BYTES", 200)
    runs.store.cache.evict(())
    found = runs.store.load(["a", "b", "c"])
    assert [found[run_id] is first[run_id] for run_id in ("a", "b", "c")] == [False, True, True]


def test_bytes_of_a_run_that_has_ended_are_not_counted_any_more(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = runs.deploy(a={**CODE, "after": START}, b={**CODE, "after": [{"step": "a"}]})
    large = Outcome(b'"' + b"x" * 98 + b'"')
    runs.add(plan, "over", RunStarted())
    runs.fold("over", AttemptEnded(0, 1, large))
    runs.fold("over", AttemptEnded(1, 1, large))
    runs.add(plan, "open", RunStarted())
    record = runs.fold("open", AttemptEnded(0, 1, large))
    monkeypatch.setattr(run_cache, "_MOST_BYTES", 150)
    runs.store.cache.evict(())
    assert runs.store.load(["open"])["open"] is record


def test_a_rolled_back_batch_does_not_change_runs(runs: Runs) -> None:
    plan = runs.deploy()
    record = runs.add(plan, "r", RunStarted())
    batch = runs.store.batch(NOW)
    batch.add(RunRecord(new_run("lost", plan, NOW), plan, record.event, 1))
    folded = fold(record, [RunFact("r", AttemptEnded(0, 1, OK))], NOW, FREE)
    batch.commit([folded])
    assert batch.load(["r"])["r"] is folded.record
    batch.rollback()
    found = runs.store.load(["r", "lost"])
    assert list(found) == ["r"]
    assert (found["r"].run, dict(found["r"].outputs)) == (record.run, {})
    assert runs.add(plan, "next", RunStarted()).order == record.order + 1
    runs.reopen()
    assert dict(runs.store.load(["r"])["r"].outputs) == {}
