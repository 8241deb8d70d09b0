"""Slots, the order of queued attempts, and how attempts start and stop."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence

from stepwell.core.compile import compile_plan
from stepwell.core.definition.definition import parse_definition
from stepwell.core.events.events import event_from
from stepwell.core.run.messages import Error, Outcome
from stepwell.core.run.run import new_run
from stepwell.local.database.schema import migrate
from stepwell.local.engine.executor import Executor
from stepwell.local.engine.limits import Limits
from stepwell.local.runners.job import CannotRun, End, Job, Log
from stepwell.local.runners.program import STOPPED
from stepwell.local.store.limit_rows import LimitRows
from stepwell.local.store.limit_values import LimitValues
from stepwell.platform import Attempt, AttemptId, Effects, QueuedAttempt, RunRecord

# These tests cover the queue only: no attempt is executed.


ALL = 1_000_000


class Listener:
    def __init__(self) -> None:
        self.ended: list[tuple[AttemptId, Outcome]] = []

    def attempt_ended(self, attempt: AttemptId, outcome: Outcome) -> None:
        self.ended.append((attempt, outcome))

    def when_logged(self, attempt: AttemptId, then: Callable[[], None]) -> None:
        then()

    def attempt_logged(self, attempt: AttemptId, stream: str, text: bytes) -> None:
        raise AssertionError


class NoRunner:
    def start(self, job: Job, log: Log, end: End) -> None:
        raise AssertionError

    async def close(self) -> None:
        raise AssertionError


def no_limits() -> Limits:
    connection = sqlite3.connect(":memory:")
    migrate(connection)
    return Limits(LimitRows(connection), LimitValues(connection, lambda: 0), lambda: 0)


def executor(parallelism: int, http_slots: int = 1) -> Executor:
    def make_job(attempt: Attempt) -> Job:
        raise AssertionError("no job is made")

    return Executor(NoRunner(), make_job, Listener(), no_limits(), parallelism, http_slots)  # type: ignore[arg-type]


def record_of(function: str, run: str, order: int = 0, *, calls: bool = False) -> RunRecord:
    runtime = {"type": "http", "url": "http://127.0.0.1/"} if calls else {"type": "lambda", "handler": "app.f"}
    step = {"path": "" if calls else "file://.", "runtime": runtime}
    definition = {"id": function, "triggers": [{"event": "go"}], "steps": {"a": step, "b": step}}
    plan = compile_plan(parse_definition(definition).normalised(), 1)
    event = event_from({"name": "go", "id": "e", "ts": 0})
    return RunRecord(new_run(run, plan, 0), plan, event, 0, order=order)


def queue_one(it: Executor, record: RunRecord, step: int = 0) -> None:
    it.carry_out(Effects(queued=[QueuedAttempt(record, step, 1)]))


def queue(it: Executor, function: str, count: int) -> None:
    for n in range(count):
        queue_one(it, record_of(function, f"{function}{n}", n))


def start(it: Executor, run: str, *, calls: bool = False) -> bool:
    """Claims an attempt of a new run, if there is a free slot."""
    if not (it.slots().calls if calls else it.slots().programs):
        return False
    it.carry_out(Effects(starts=[Attempt(record_of("f", run, calls=calls), 0, 1, b"{}")]))
    return True


def release(it: Executor, *taken: AttemptId) -> None:
    it.carry_out(Effects(released=list(taken)))


def names(taken: list[AttemptId]) -> list[str]:
    return [run for run, _, _ in taken]


def test_functions_take_turns_however_many_one_has_queued() -> None:
    it = executor(6)
    queue(it, "a", 1000)
    queue(it, "b", 2)
    queue(it, "c", 1)
    assert names(it.take_queued(ALL)) == ["a0", "b0", "c0", "a1", "b1", "a2"]


def test_turns_continue_where_they_stopped() -> None:
    it = executor(1)
    queue(it, "a", 3)
    queue(it, "b", 3)
    order = []
    for _ in range(6):
        taken = it.take_queued(ALL)
        order += names(taken)
        release(it, *taken)
    assert order == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_no_more_are_taken_than_there_are_slots() -> None:
    it = executor(2)
    queue(it, "a", 5)
    first, _ = it.take_queued(ALL)
    assert it.take_queued(ALL) == []
    release(it, first)
    assert names(it.take_queued(ALL)) == ["a2"]


def test_a_new_attempt_does_not_overtake_queued_ones() -> None:
    it = executor(1)
    queue(it, "a", 2)
    (taken,) = it.take_queued(ALL)
    assert not start(it, "new")
    release(it, taken)
    assert not start(it, "new")
    assert names(it.take_queued(ALL)) == ["a1"]


def test_attempts_of_earlier_runs_come_first_whenever_they_came() -> None:
    it = executor(4)
    for order, run in ((3, "third"), (1, "first"), (2, "second")):
        queue_one(it, record_of("a", run, order))
    queue_one(it, record_of("a", "first", 1), 1)
    assert it.take_queued(ALL) == [("first", 0, 1), ("first", 1, 1), ("second", 0, 1), ("third", 0, 1)]


def test_attempts_of_early_runs_take_turns_with_those_of_other_functions() -> None:
    it = executor(4)
    for order in range(100):
        queue_one(it, record_of("a", f"a{order}", order))
    for order in (200, 201):
        queue_one(it, record_of("b", f"b{order}", order))
    assert names(it.take_queued(ALL)) == ["a0", "b200", "a1", "b201"]


def test_as_many_are_taken_as_requested() -> None:
    it = executor(5)
    queue(it, "a", 10)
    assert names(it.take_queued(2)) == ["a0", "a1"]
    assert it.can_take
    assert len(it.take_queued(ALL)) == 3
    assert not it.can_take


def test_calls_and_programs_take_no_slots_of_each_other() -> None:
    it = executor(1, http_slots=2)
    for n in range(3):
        queue_one(it, record_of("a", f"call{n}", n, calls=True))
    for n in range(2):
        queue_one(it, record_of("a", f"program{n}", n))
    taken = it.take_queued(ALL)
    assert sorted(names(taken)) == ["call0", "call1", "program0"]
    assert it.take_queued(ALL) == []
    release(it, *(attempt for attempt in taken if attempt[0] == "call0"))
    assert names(it.take_queued(ALL)) == ["call2"]
    release(it, *(attempt for attempt in taken if attempt[0] == "program0"))
    assert names(it.take_queued(ALL)) == ["program1"]


def test_calls_of_functions_take_turns_too() -> None:
    it = executor(1, http_slots=3)
    for function, count in (("a", 10), ("b", 1)):
        for n in range(count):
            queue_one(it, record_of(function, f"{function}{n}", n, calls=True))
    assert names(it.take_queued(ALL)) == ["a0", "b0", "a1"]


def test_an_attempt_that_was_queued_keeps_its_slot_when_it_is_started() -> None:
    it = executor(2)
    queue(it, "a", 1)
    ((run, step, number),) = it.take_queued(ALL)
    it.carry_out(Effects(starts=[Attempt(record_of("a", run), step, number, b"{}")]))
    assert it.slots().programs == 1
    release(it, (run, step, number))
    assert it.slots().programs == 1, "it is running: the slot is free when it ends"


def test_an_attempt_queues_once() -> None:
    it = executor(5)
    for _ in range(3):
        queue_one(it, record_of("a", "run"))
    assert len(it.take_queued(ALL)) == 1


def test_a_paused_executor_starts_nothing() -> None:
    it = executor(5)
    it.pause()
    queue(it, "a", 1)
    assert it.take_queued(ALL) == []
    assert not start(it, "new")
    assert not it.is_idle


def test_a_discarded_batch_gives_its_slots_back() -> None:
    it = executor(2)
    assert start(it, "new")
    queue(it, "a", 2)
    it.take_queued(ALL)
    it.discard_batch()
    assert it.is_idle
    assert it.slots().programs == 2


def test_a_job_that_cannot_be_made_is_a_final_failure() -> None:
    def make_job(attempt: Attempt) -> Job:
        raise CannotRun("the secret X is not set")

    record = record_of("f", "run")
    listener = Listener()
    it = Executor(NoRunner(), make_job, listener, no_limits(), 1)  # type: ignore[arg-type]
    it.carry_out(Effects(starts=[Attempt(record, 0, 1, b"{}")]))
    it.launch()
    error = Error("start", "the secret X is not set")
    assert listener.ended == [(("run", 0, 1), Outcome(error=error, retryable=False))]
    assert it.is_idle
    assert it.slots().programs == 1


class Started:
    """A runner whose attempts run until they are stopped."""

    def __init__(self) -> None:
        self.runs: list[str] = []

    def start(self, job: Job, log: Log, end: End) -> Started:
        self.runs.append(job.run_id)
        return self

    def stop(self) -> None: ...


def launched(it: Executor, runs: Sequence[str]) -> None:
    for run in runs:
        assert start(it, run)
    it.launch()


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def starting() -> tuple[Executor, Started, Listener]:
    """An executor that yields to the event loop after each attempt."""

    def make_job(attempt: Attempt) -> Job:
        record = attempt.record
        return Job(record.run.id, "f", 1, record.plan.steps[0], 1, b"", None, None, {})

    runner, listener = Started(), Listener()
    return Executor(runner, make_job, listener, no_limits(), 10, slice_s=0.0), runner, listener  # type: ignore[arg-type]


def test_many_attempts_start_in_order_without_blocking_the_loop() -> None:
    async def main() -> None:
        it, runner, _ = starting()
        launched(it, ["a", "b", "c"])
        assert runner.runs == ["a"]
        launched(it, ["d"])
        assert {run for run, _, _ in it.running} == {"a", "b", "c", "d"}
        seen = []
        while len(runner.runs) < 4:
            await asyncio.sleep(0)
            seen.append(len(runner.runs))
        assert runner.runs == ["a", "b", "c", "d"]
        assert seen == [2, 3, 4]

    asyncio.run(main())


def test_an_attempt_that_is_stopped_before_its_turn_is_not_started() -> None:
    async def main() -> None:
        it, runner, listener = starting()
        launched(it, ["a", "b", "c"])
        it.carry_out(Effects(stops=[("c", 0, 1)]))
        it.launch()
        await turns(3)
        assert runner.runs == ["a", "b"]
        assert listener.ended == [(("c", 0, 1), STOPPED)]
        assert {run for run, _, _ in it.running} == {"a", "b"}

    asyncio.run(main())


def test_a_discarded_batch_does_not_affect_earlier_ones() -> None:
    async def main() -> None:
        it, runner, _ = starting()
        launched(it, ["a", "b", "c"])
        it.discard_batch()
        await turns(3)
        assert runner.runs == ["a", "b", "c"]

    asyncio.run(main())
