"""The checks of a start: which events may start a run, and what a refused event uses up."""

from __future__ import annotations

from typing import Any

import pytest

from stepwell.core.events.events import run_id
from stepwell.core.plan import Plan
from stepwell.core.routing.not_started import CannotStart
from stepwell.engine.accept import resume
from stepwell.engine.loop import Engine
from stepwell.engine.rerun import rerun
from stepwell.platform import Cause, IncomingEvent
from stepwell.testing.memory import RecordingDispatcher
from tests.engine.scene import LINKS, Scene, event_of, plan_of

HOUR = 3_600_000
MESSAGE, AGAIN = Cause("m", redelivered=False), Cause("m", redelivered=True)


def limited(limit: int = 1, key: str | None = None, **fields: Any) -> Plan:
    rate_limit = {"limit": limit, "period": "1h", **({} if key is None else {"key": key})}
    return plan_of(fields={"rate_limit": rate_limit, **fields})


def send(scene: Scene, id: str, cause: Cause | None = None, **data: Any) -> None:
    assert not scene.send(event_of(id=id, data=data), cause=cause)


def started(scene: Scene) -> list[str]:
    return [record.event.id for record in scene.store.runs.values()]


def reasons(scene: Scene, id: str) -> list[tuple[str, str | None]]:
    return [(miss.expression, miss.problem) for miss in scene.store.events[id].not_started]


def test_an_event_beyond_the_limit_starts_nothing_and_names_the_next_possible_start() -> None:
    scene = Scene(limited(key="data.customer"), plan_of("g"))
    send(scene, "one", customer=7)
    send(scene, "two", customer=7)
    send(scene, "three", customer=8)
    plans = [(record.plan.function_id, record.event.id) for record in scene.store.runs.values()]
    assert plans == [("f", "one"), ("g", "one"), ("g", "two"), ("f", "three"), ("g", "three")]
    reason = "`rate_limit` is reached (1 start in 1h); the next start is possible at 2026-05-28T21:26:40.000Z"
    assert reasons(scene, "two") == [("data.customer", reason)]
    scene.now += HOUR
    send(scene, "four", customer=7)
    assert started(scene)[-2:] == ["four", "four"]


def test_the_clock_of_the_engine_decides_and_not_the_time_of_the_event() -> None:
    scene = Scene(limited())
    scene.send(event_of(id="one", ts=1), event_of(id="two", ts=1 + 9 * HOUR))
    assert started(scene) == ["one"]


def test_an_event_without_a_key_always_starts_a_run_that_shows_the_reason() -> None:
    scene = Scene(limited(key="data.customer"))
    send(scene, "one")
    send(scene, "two")
    problems = [record.run.problems for record in scene.store.runs.values()]
    assert [[(kind, index) for kind, index, _ in found] for found in problems] == 2 * [[("rate_limit", 0)]]


def test_an_event_that_the_rate_limit_refuses_does_not_use_its_idempotency_value() -> None:
    scene = Scene(limited(idempotency="data.order"))
    send(scene, "one", order=1)
    send(scene, "refused", order=2)
    scene.now += HOUR
    send(scene, "two", order=2)
    assert started(scene) == ["one", "two"]


def test_an_event_whose_idempotency_value_is_known_does_not_count_for_the_rate_limit() -> None:
    scene = Scene(limited(2, idempotency="data.order"))
    for number, order in enumerate((1, 1, 1, 2, 3)):
        send(scene, f"e{number}", order=order)
    assert started(scene) == ["e0", "e3"]
    assert [expression for expression, _ in reasons(scene, "e1")] == ["data.order"]


def test_a_redelivered_event_whose_run_exists_counts_once() -> None:
    scene = Scene(limited(2))
    send(scene, "one", MESSAGE)
    scene.now += 1
    send(scene, "one", AGAIN)
    send(scene, "two")
    send(scene, "three")
    assert started(scene) == ["one", "two"]


def test_a_redelivered_event_stays_refused() -> None:
    scene = Scene(limited())
    send(scene, "one")
    send(scene, "two", MESSAGE)
    scene.now += 2 * HOUR
    send(scene, "two", AGAIN)
    assert started(scene) == ["one"]
    assert len(reasons(scene, "two")) == 1


def test_a_redelivered_event_that_was_counted_before_a_crash_counts_when_it_starts() -> None:
    scene = Scene(limited())
    rate_limit = limited().rate_limit
    assert rate_limit is not None
    send(scene, "other", customer=1)
    scene.store.checks.rate_limits.starts.clear()
    event = event_of(id="one")
    scene.engine.process(scene.batch(), [IncomingEvent(event, cause=MESSAGE)], [])
    run = run_id("f", "one")
    del scene.store.runs[run]  # the process crashed after the claim
    scene.now += HOUR // 2
    send(scene, "one", AGAIN)
    assert run in scene.store.runs
    scene.now += HOUR // 2
    send(scene, "early")
    scene.now += HOUR // 2
    send(scene, "late")
    assert started(scene) == ["other", "one", "late"]


def test_events_of_a_resumed_function_obey_the_limit_at_that_time() -> None:
    scene = Scene(limited(2))
    scene.store.paused.add("f")
    events = [event_of(id=name) for name in ("one", "two", "three")]
    scene.send(*events)
    scene.store.paused.clear()
    batch = scene.batch()
    facts = resume(batch, "f", scene.store.held["f"], None)
    engine = Engine(RecordingDispatcher(), "test", lambda: LINKS)
    assert not engine.process(batch, [], facts)
    assert started(scene) == ["one", "two"]
    assert len(reasons(scene, "three")) == 1


def test_a_function_without_checks_is_not_checked() -> None:
    assert not plan_of().is_checked
    assert limited().is_checked
    assert plan_of(fields={"idempotency": "event.id"}).is_checked


# --- one run at a time -----------------------------------------------------------------------------------------------


def single(mode: str, **fields: Any) -> Plan:
    return plan_of(fields={"singleton": {"mode": mode, "key": "data.account"}, **fields})


def statuses(scene: Scene) -> dict[str, str]:
    return {record.event.id: record.run.status.name.lower() for record in scene.store.runs.values()}


def test_while_a_run_is_open_an_event_with_the_same_key_starts_none() -> None:
    scene = Scene(single("skip"))
    send(scene, "one", account=7)
    send(scene, "two", account=7)
    send(scene, "three", account=8)
    assert statuses(scene) == {"one": "running", "three": "running"}
    (miss,) = scene.store.events["two"].not_started
    assert (miss.run_id, miss.expression) == (run_id("f", "one"), "data.account")


def test_a_later_event_cancels_the_open_run() -> None:
    scene = Scene(single("cancel"))
    send(scene, "one", account=7)
    send(scene, "two", account=7)
    assert statuses(scene) == {"one": "cancelled", "two": "running"}
    assert scene.store.runs[run_id("f", "one")].run.replaced_by == run_id("f", "two")


def test_an_earlier_event_does_not_cancel_the_run_of_a_later_one() -> None:
    scene = Scene(single("cancel"))
    scene.store.paused.add("f")
    scene.send(event_of(id="one", data={"account": 7}))
    scene.store.paused.clear()
    send(scene, "two", account=7)
    batch = scene.batch()
    facts = resume(batch, "f", scene.store.held["f"], None)
    assert not scene.engine.process(batch, [], facts)
    assert statuses(scene) == {"two": "running"}
    assert [miss.run_id for miss in scene.store.events["one"].not_started] == [run_id("f", "two")]


def test_an_event_that_is_skipped_does_not_count_for_the_rate_limit() -> None:
    scene = Scene(single("skip", rate_limit={"limit": 2, "period": "1h"}, idempotency="data.order"))
    send(scene, "one", account=7, order=1)
    for number in range(5):
        send(scene, f"skipped-{number}", account=7, order=2)
    send(scene, "two", account=8, order=2)
    send(scene, "three", account=9, order=3)
    assert statuses(scene) == {"one": "running", "two": "running"}


def test_a_redelivered_event_cancels_what_its_run_replaces_if_that_was_lost() -> None:
    scene = Scene(single("cancel"))
    send(scene, "one", account=7)
    before = scene.store.runs[run_id("f", "one")]
    send(scene, "two", MESSAGE, account=7)
    scene.store.runs[run_id("f", "one")] = before  # the process crashed before this run was written
    send(scene, "two", AGAIN, account=7)
    assert statuses(scene) == {"one": "cancelled", "two": "running"}


def test_a_redelivered_event_whose_run_was_replaced_changes_nothing() -> None:
    scene = Scene(single("cancel"))
    send(scene, "one", MESSAGE, account=7)
    send(scene, "two", account=7)
    send(scene, "one", AGAIN, account=7)
    assert statuses(scene) == {"one": "cancelled", "two": "running"}
    assert scene.store.events["one"].not_started == []


def test_a_rerun_beside_an_open_run_names_it() -> None:
    scene = Scene(single("skip"))
    send(scene, "one", account=7)
    with pytest.raises(CannotStart, match=f"run {scene.run.id} is open and has the same key; cancel that run"):
        rerun(scene.engine, scene.batch(), scene.record, "again")


def test_a_rerun_without_a_key_is_open_beside_others() -> None:
    scene = Scene(single("skip"))
    send(scene, "one")
    assert rerun(scene.engine, scene.batch(), scene.record, "again") is not None
    assert [record.run.problems[0][0] for record in scene.store.runs.values()] == 2 * ["singleton"]
