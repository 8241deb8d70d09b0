"""When cron triggers are due, to the millisecond, and which messages are sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from stepwell.aws import clients
from stepwell.aws.functions.schedules import AHEAD_MS, GUARD_EVERY_MS, Schedules
from stepwell.aws.resources import Resources
from stepwell.aws.signing.tokens import Tokens
from stepwell.aws.table.items import read_partition
from stepwell.core.compile import compile_plan
from stepwell.core.definition.definition import parse_definition
from stepwell.core.plan import Plan
from stepwell.testing.batches import Json, handler_step

TEN = int(datetime(2026, 6, 1, 10, tzinfo=UTC).timestamp() * 1000)
MINUTE, HOUR = 60_000, 3_600_000
HOURLY = "0 * * * *"


def plan(*crons: str) -> Plan:
    triggers = [{"cron": cron} for cron in crons] or [{"event": "go"}]
    raw = {"id": "f", "triggers": triggers, "steps": {"a": handler_step()}}
    return compile_plan(parse_definition(raw).normalised(), 1)


@pytest.fixture
def schedules(resources: Resources) -> Schedules:
    return Schedules(resources)


def items(resources: Resources) -> dict[str, Json]:
    return {item["sk"]["S"]: item for item in read_partition(resources.table, "C")}


def next_of(resources: Resources, cron: str = HOURLY) -> int:
    return int(items(resources)[f"f#{cron}#UTC"]["next"]["N"])


@contextmanager
def ticks() -> Iterator[list[tuple[int, int]]]:
    """The ticks that are sent: the time of each, and the delay of the message in seconds."""
    found: list[tuple[int, int]] = []

    def note(params: Json, **_: Any) -> None:
        for entry in json.loads(params["body"])["Entries"]:
            found.append((json.loads(entry["MessageBody"])["at"], entry.get("DelaySeconds", 0)))

    events = clients.client("sqs").meta.events
    events.register("before-call.sqs.SendMessageBatch", note, unique_id="ticks")
    try:
        yield found
    finally:
        events.unregister("before-call.sqs.SendMessageBatch", unique_id="ticks")


def test_a_tick_is_sent_two_minutes_before_it_is_due_and_not_a_millisecond_earlier(
    resources: Resources, schedules: Schedules
) -> None:
    tokens = Tokens(resources)
    schedules.set("f", plan(HOURLY), False, False, TEN - HOUR)
    with ticks() as sent:
        schedules.send(TEN - AHEAD_MS - 1, tokens)
        assert sent == []
        schedules.send(TEN - AHEAD_MS, tokens)
        schedules.send(TEN - AHEAD_MS + MINUTE, tokens)
    assert sent == [(TEN, AHEAD_MS // 1000)]
    assert next_of(resources) == TEN + HOUR


def test_every_tick_that_falls_into_the_two_minutes_is_sent(resources: Resources, schedules: Schedules) -> None:
    schedules.set("f", plan("* * * * *"), False, False, TEN)
    with ticks() as sent:
        schedules.send(TEN + 1, Tokens(resources))
    assert sent == [(TEN + MINUTE, 60), (TEN + 2 * MINUTE, 120)]


def test_after_a_downtime_the_latest_tick_that_was_missed_is_sent_alone(
    resources: Resources, schedules: Schedules
) -> None:
    schedules.set("f", plan(HOURLY), False, False, TEN - 5 * HOUR)
    with ticks() as sent:
        schedules.send(TEN, Tokens(resources))
    assert sent == [(TEN, 0)]
    assert next_of(resources) == TEN + HOUR


def test_a_trigger_that_stays_keeps_its_next_tick_and_one_that_goes_is_gone(
    resources: Resources, schedules: Schedules
) -> None:
    schedules.set("f", plan(HOURLY, "5 * * * *"), False, False, TEN - HOUR)
    schedules.set("ff", plan(HOURLY), False, False, TEN - HOUR)
    schedules.set("f", plan(HOURLY, "7 * * * *"), False, False, TEN + 10 * HOUR)
    assert next_of(resources) == TEN  # it was missed, and must still be sent
    assert next_of(resources, "7 * * * *") == TEN + 10 * HOUR + 7 * MINUTE
    assert len(items(resources)) == 3
    schedules.set("f", None, False, False, TEN)
    assert [name.partition("#")[0] for name in items(resources)] == ["ff"]


def test_what_falls_into_a_pause_is_missed_and_not_sent(resources: Resources, schedules: Schedules) -> None:
    """Ticks during a pause are missed, except the latest.

    A message that was sent before has no effect during the pause.
    """
    tokens = Tokens(resources)
    schedules.set("f", plan(HOURLY), False, False, TEN - HOUR)
    schedules.send(TEN - MINUTE, tokens)  # sends the tick at ten
    schedules.set("f", plan(HOURLY), True, False, TEN - MINUTE)
    assert next_of(resources) == TEN
    with ticks() as sent:
        schedules.send(TEN + 3 * HOUR, tokens)
        assert sent == []
        schedules.set("f", plan(HOURLY), False, False, TEN + 3 * HOUR + MINUTE)
        schedules.send(TEN + 3 * HOUR + MINUTE, tokens)
    assert sent == [(TEN + 3 * HOUR, 0)]


def test_a_trigger_that_is_paused_while_it_is_sent_is_not_written_again(
    resources: Resources, schedules: Schedules
) -> None:
    tokens = Tokens(resources)
    schedules.set("f", plan(HOURLY), False, False, TEN - HOUR)

    def pause(**_: Any) -> None:
        schedules.set("f", plan(HOURLY), True, False, TEN - MINUTE)

    events = clients.client("sqs").meta.events
    events.register("before-call.sqs.SendMessageBatch", pause, unique_id="pause")
    try:
        schedules.send(TEN - MINUTE, tokens)
    finally:
        events.unregister("before-call.sqs.SendMessageBatch", unique_id="pause")
    assert next_of(resources) == TEN


def test_a_guarded_canary_is_looked_at_each_minute_until_it_is_guarded_no_more(
    resources: Resources, schedules: Schedules
) -> None:
    tokens = Tokens(resources)
    schedules.set("f", plan(HOURLY), False, True, TEN)
    before = items(resources)["f#guard"]
    assert int(before["next"]["N"]) == TEN + AHEAD_MS + GUARD_EVERY_MS
    assert schedules.send(TEN + GUARD_EVERY_MS - 1, tokens) == []
    schedules.set("f", plan(HOURLY), False, True, TEN + 30_000)  # it changes nothing
    assert items(resources)["f#guard"] == before
    assert schedules.send(TEN + GUARD_EVERY_MS, tokens) == ["f"]
    assert schedules.send(TEN + GUARD_EVERY_MS + 1, tokens) == []
    schedules.set("f", plan(HOURLY), False, False, TEN)
    assert list(items(resources)) == ["f#0 * * * *#UTC"]
