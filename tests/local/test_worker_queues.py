"""Queued attempts that workers of another system fetch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from stepwell.local.engine import worker_queues
from stepwell.local.engine.slots import Place
from stepwell.local.engine.worker_queues import WorkerQueues
from stepwell.platform import AttemptId

Test = Callable[[WorkerQueues], Coroutine[None, None, None]]
ALL = 1_000


def attempt(name: str) -> AttemptId:
    return name, 0, 1


def queues(test: Test) -> None:
    async def main() -> None:
        await test(WorkerQueues())

    asyncio.run(main())


def add(it: WorkerQueues, queue: str, *names: str, function: str = "f") -> None:
    for order, name in enumerate(names):
        it.queue(queue, Place(function, order), attempt(name))


def claim(it: WorkerQueues) -> list[AttemptId]:
    taken = it.take_queued(ALL)
    for attempt_id in taken:
        it.hand_over(attempt_id)
    return taken


def test_nothing_is_claimed_before_a_worker_asks() -> None:
    async def test(it: WorkerQueues) -> None:
        add(it, "default", "a", "b")
        assert (it.can_take, it.take_queued(ALL)) == (False, [])
        future = it.ask(["default"])
        assert claim(it) == [attempt("a")]
        assert await future == attempt("a")
        assert it.sizes() == {"default": 1}

    queues(test)


def test_a_worker_that_waits_gets_the_next_attempt() -> None:
    async def test(it: WorkerQueues) -> None:
        future = it.ask(["default"])
        add(it, "other", "x")
        assert not it.can_take
        add(it, "default", "a")
        claim(it)
        assert await future == attempt("a")

    queues(test)


def test_the_first_of_a_workers_queues_comes_first() -> None:
    async def test(it: WorkerQueues) -> None:
        add(it, "low", "l")
        add(it, "high", "h")
        first, second = it.ask(["high", "low"]), it.ask(["high", "low"])
        claim(it)
        assert (await first, await second) == (attempt("h"), attempt("l"))

    queues(test)


def test_functions_take_turns_in_a_queue() -> None:
    async def test(it: WorkerQueues) -> None:
        add(it, "default", "a0", "a1", function="a")
        add(it, "default", "b0", function="b")
        asked = [it.ask(["default"]) for _ in range(3)]
        claim(it)
        assert [(await future)[0] for future in asked] == ["a0", "b0", "a1"]

    queues(test)


def test_a_request_for_a_queued_attempt_asks_for_a_batch() -> None:
    async def test(it: WorkerQueues) -> None:
        called: list[bool] = []
        it.on_request = lambda: called.append(True)
        it.ask(["default"]).cancel()
        assert called == []
        add(it, "default", "a")
        it.ask(["default"])
        assert called == [True]

    queues(test)


def test_a_worker_that_has_gone_gets_nothing() -> None:
    async def test(it: WorkerQueues) -> None:
        it.ask(["default"]).cancel()
        await asyncio.sleep(0)
        add(it, "default", "a")
        assert not it.can_take

    queues(test)


def test_another_worker_gets_what_was_claimed_for_one_that_has_gone() -> None:
    async def test(it: WorkerQueues) -> None:
        add(it, "default", "a", "b")
        gone = it.ask(["default"])
        (taken,) = it.take_queued(ALL)
        gone.cancel()
        it.hand_over(taken)
        assert await it.ask(["default"]) == attempt("a")

    queues(test)


def test_an_attempt_that_was_given_back_goes_to_a_worker_that_waits() -> None:
    async def test(it: WorkerQueues) -> None:
        waiting = it.ask(["default"])
        it.give_back("default", attempt("a"))
        assert await waiting == attempt("a")

    queues(test)


def test_an_attempt_that_ended_is_given_to_nobody() -> None:
    async def test(it: WorkerQueues) -> None:
        it.give_back("default", attempt("a"))
        it.ended("default", attempt("a"))
        future = it.ask(["default"])
        await asyncio.sleep(0)
        assert not future.done()

    queues(test)


def test_the_worker_of_a_claim_that_failed_waits_on() -> None:
    async def test(it: WorkerQueues) -> None:
        add(it, "default", "a", "b")
        future = it.ask(["default"])
        (taken,) = it.take_queued(ALL)
        it.release(taken)
        claim(it)
        assert await future == attempt("b")

    queues(test)


def test_after_a_rollback_the_queue_is_filled_again_and_workers_wait_on() -> None:
    async def test(it: WorkerQueues) -> None:
        add(it, "default", "a", "b")
        future = it.ask(["default"])
        it.take_queued(ALL)
        it.reset()
        assert it.sizes() == {}
        add(it, "default", "a", "b")
        claim(it)
        assert await future == attempt("a")

    queues(test)


def test_a_server_that_stops_claims_nothing_for_workers() -> None:
    async def test(it: WorkerQueues) -> None:
        add(it, "default", "a")
        it.close()
        it.ask(["default"])
        assert (it.can_take, it.take_queued(ALL)) == (False, [])

    queues(test)


def test_an_attempt_that_no_worker_gets_is_reported_after_some_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(it: WorkerQueues) -> None:
        reported: asyncio.Queue[AttemptId] = asyncio.Queue()
        it.on_undelivered = reported.put_nowait
        for name in ("taken", "ended", "left"):
            it.give_back("default", attempt(name))
        assert await it.ask(["default"]) == attempt("taken")
        it.ended("default", attempt("ended"))
        assert await reported.get() == attempt("left")
        assert reported.empty()
        assert it.take_undelivered() == []

    monkeypatch.setattr(worker_queues, "UNDELIVERED_S", 0.01)
    queues(test)


def test_a_server_that_stops_takes_back_what_no_worker_got() -> None:
    async def test(it: WorkerQueues) -> None:
        it.give_back("default", attempt("a"))
        it.give_back("other", attempt("b"))
        assert it.take_undelivered() == [attempt("a"), attempt("b")]
        assert it.take_undelivered() == []

    queues(test)
