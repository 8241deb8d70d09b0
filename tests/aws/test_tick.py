"""The work of every minute: a part that fails, or one trigger, does not hold up the others."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

import pytest
import time_machine

from stepwell.aws.engine.session import now_ms
from stepwell.aws.functions.schedules import Schedules
from stepwell.aws.resources import Resources
from stepwell.aws.signing.tokens import Tokens
from stepwell.aws.table.keys import timer_partition
from stepwell.core.run.run import RunStatus
from stepwell.testing.batches import LOST, Batches, handler_step


def test_a_cron_may_name_the_second_monday(resources: Resources) -> None:
    with time_machine.travel(datetime(2026, 6, 8, 8, 58, 30, tzinfo=UTC), tick=False) as clock:  # the second Monday
        batches = Batches(resources)
        batches.deploy({"a": handler_step()}, id="monthly", triggers=[{"cron": "0 9 * * 1#2"}])
        batches.deploy({"a": handler_step()}, id="often", triggers=[{"cron": "* * * * *"}])
        batches.scheduler.tick()
        clock.shift(91)
        batches.drain()
        functions = {payload["ctx"]["function_id"] for payload in batches.invoked}
    assert functions == {"monthly", "often"}


@pytest.mark.parametrize("cron", ["* * * * *", "*/2 * * * *", "30 10 * * *"])
def test_cron_ticks_on_after_a_round_of_a_clock_that_was_hours_ahead(resources: Resources, cron: str) -> None:
    """Each tick once, and none before the time."""
    with time_machine.travel(datetime(2026, 6, 1, 10, 0, 30, tzinfo=UTC), tick=False) as clock:
        batches = Batches(resources)
        batches.deploy({"a": handler_step()}, id="often", triggers=[{"cron": cron}])
        clock.shift(5 * 3600)
        batches.scheduler.tick()
        clock.shift(-5 * 3600)
        started = []
        for _ in range(32):
            batches.scheduler.tick()
            clock.shift(60)
            batches.drain()
            started = [payload["event"]["data"]["scheduled_at"] for payload in batches.invoked]
    minutes = {"* * * * *": range(1, 33), "*/2 * * * *": range(2, 33, 2), "30 10 * * *": [30]}[cron]
    assert started == [f"2026-06-01T10:{minute:02}:00Z" for minute in minutes]


def test_a_guarded_canary_is_looked_at_after_a_round_of_a_clock_that_was_hours_ahead(resources: Resources) -> None:
    with time_machine.travel(datetime(2026, 6, 1, 10, 0, 30, tzinfo=UTC), tick=False):
        schedules, now = Schedules(resources), now_ms()
        schedules.set("f", None, False, True, now + 5 * 3_600_000)
        tokens = Tokens(resources)
        assert schedules.send(now, tokens) == ["f"]
        assert schedules.send(now, tokens) == []
        assert schedules.send(now + 60_000, tokens) == ["f"]


def test_what_is_wrong_with_a_timer_holds_up_neither_cron_nor_the_sweeper(resources: Resources) -> None:
    with time_machine.travel(datetime(2026, 6, 1, 10, 0, 30, tzinfo=UTC), tick=False) as clock:
        batches = Batches(resources, lambda ctx: LOST if ctx["attempt"] == 1 else {})
        batches.deploy({"a": handler_step()})
        batches.deploy({"a": handler_step()}, id="often", triggers=[{"cron": "*/5 * * * *"}])
        batches.send()
        batches.drain()
        clock.shift(3 * 3600)
        broken = {"pk": {"S": timer_partition(0)}, "sk": {"S": f"{now_ms():015}#r#0"}, "t": {"S": "nonsense"}}
        batches.outside_db.put_item(TableName=resources.table, Item=broken)
        with pytest.raises(ValueError, match="nonsense"):
            batches.scheduler.tick()
        for _ in range(8):  # the sweeper checks a shard every eight minutes
            clock.shift(60)
            with suppress(ValueError):  # again when the timer is late
                batches.scheduler.tick()
            batches.drain()
        statuses = [stored.run.status for stored, _ in batches.runs() if stored.function == "f"]
    assert statuses == [RunStatus.COMPLETED]
    assert "often" in {payload["ctx"]["function_id"] for payload in batches.invoked}
