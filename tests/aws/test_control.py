"""Operations of the API on the engine: failures are reported, and no operation stays half done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stepwell.aws.engine.session import now_ms
from stepwell.core.routing.versions import deleted, paused, resumed
from stepwell.core.run.approvals import Link
from stepwell.core.run.messages import Outcome
from stepwell.core.run.run import RunStatus
from stepwell.platform import NotWritten
from stepwell.testing.batches import LOST, Batches, handler_step
from tests.aws.sent_messages import Sent, sent_messages
from tests.aws.test_sweep import failing

ASKS = {"runtime": {"type": "approval", "message": "Really?"}, "timeout": "10m"}


def kinds(sent: list[Sent]) -> list[tuple[str, int]]:
    """The kind of each message, and the delay in seconds."""
    return [(message.kind, message.delay_s) for message in sent]


def asking(batches: Batches) -> Link:
    """A run with an open approval, and the link to approve it."""
    batches.deploy({"ask": ASKS})
    batches.send()
    batches.drain()
    ((stored, _),) = batches.runs()
    return Link(stored.run.id, 0, 1, "approved", now_ms() + 600_000)


def cancel(batches: Batches) -> None:
    batches.answer = lambda ctx: LOST
    batches.deploy({"a": handler_step()})
    batches.send()
    batches.drain()
    batches.control.cancel(batches.runs()[0][0].run.id)


def decide(batches: Batches) -> None:
    assert batches.control.decide(asking(batches), Outcome(b"{}"))


@pytest.mark.parametrize("end", [cancel, decide])
def test_who_ends_a_run_has_somebody_look_at_it_when_the_request_must_be_over(
    batches: Batches, clock: Any, end: Callable[[Batches], None]
) -> None:
    """The message is delayed until the decision is written or never will be."""
    with sent_messages() as sent:
        end(batches)
    assert kinds(sent).count(("ended", 10)) == 1


def test_who_resumes_a_function_has_it_looked_at_at_once_and_when_the_request_must_be_over(batches: Batches) -> None:
    batches.deploy({"a": handler_step()})
    with sent_messages() as sent:
        batches.control.change_routing("f", lambda old, versions, now: paused(old, drop=False))
    assert sent == []
    with sent_messages() as sent:
        batches.control.change_routing("f", lambda old, versions, now: resumed(old))
    assert kinds(sent) == [("release", 10), ("release", 0)]
    with sent_messages() as sent:
        batches.control.change_routing("f", lambda old, versions, now: resumed(old))
    assert kinds(sent) == [("release", 0)]


def test_a_decision_that_could_not_be_written_is_no_success(batches: Batches, clock: Any) -> None:
    link = asking(batches)
    with (
        failing("dynamodb", "PutItem", "ProvisionedThroughputExceededException", lambda body: "R#" in body),
        pytest.raises(NotWritten, match="could not be written"),
    ):
        batches.control.decide(link, Outcome(b"{}"))
    assert batches.control.decide(link, Outcome(b"{}"))
    batches.drain()
    assert [stored.run.status for stored, _ in batches.runs()] == [RunStatus.COMPLETED]


def test_nobody_decides_twice_nor_on_another_attempt_nor_after_the_time(batches: Batches, clock: Any) -> None:
    link = asking(batches)
    other = Link(link.run_id, 0, 2, "approved", link.expires_at)
    assert not batches.control.decide(other, Outcome(b"1"))
    assert not batches.control.decide(Link("a" * 26, 0, 1, "approved", link.expires_at), Outcome(b"1"))
    late = Link(link.run_id, 0, 1, "approved", now_ms())
    assert not batches.control.decide(late, Outcome(b"1"))
    assert batches.control.decide(link, Outcome(b"2"))
    assert not batches.control.decide(link, Outcome(b"2"))
    batches.drain()
    assert [attempt.output for _, attempts in batches.runs() for attempt in attempts] == [b"2"]


def test_of_a_deleted_function_all_runs_are_cancelled_page_by_page_and_no_others(
    batches: Batches, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepwell.aws.engine.function_messages._CANCELLED_AT_ONCE", 2)
    waits = {"a": handler_step({"step": "$trigger", "wait": "10m"})}
    batches.deploy(waits)
    batches.deploy(waits, id="g")
    for number in range(4):
        batches.send(data={"n": number})
    batches.drain()
    batches.control.change_routing("f", lambda old, versions, now: deleted(old))
    batches.control.cancel_runs("f")
    batches.drain()
    statuses = sorted((stored.function, stored.run.status.name) for stored, _ in batches.runs())
    assert statuses == [("f", "CANCELLED")] * 4 + [("g", "RUNNING")] * 4
