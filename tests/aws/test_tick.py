"""The minute's work: one part that fails, or one trigger, holds up no other."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import time_machine

from stepwell.aws.entry import now_ms
from stepwell.aws.resources import Resources
from stepwell.aws.table import timer_partition
from stepwell.core.run import RunStatus
from stepwell.testing.batches import LOST, Batches, handler_step


def test_a_cron_may_name_the_second_monday(resources: Resources) -> None:
    with time_machine.travel(datetime(2026, 6, 8, 8, 58, 30, tzinfo=UTC), tick=False) as clock:  # the second Monday
        batches = Batches(resources)
        batches.deploy({"a": handler_step()}, id="monthly", triggers=[{"cron": "0 9 * * 1#2"}])
        batches.deploy({"a": handler_step()}, id="often", triggers=[{"cron": "* * * * *"}])
        batches.entry.tick()
        clock.shift(91)
        batches.drain()
        functions = {payload["ctx"]["function_id"] for payload in batches.invoked}
    assert functions == {"monthly", "often"}


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
        for _ in range(8):  # the sweeper comes to a shard every eight minutes
            with pytest.raises(ValueError, match="nonsense"):
                batches.entry.tick()
            clock.shift(60)
            batches.drain()
        statuses = [stored.run.status for stored, _ in batches.runs() if stored.function == "f"]
    assert statuses == [RunStatus.COMPLETED]
    assert "often" in {payload["ctx"]["function_id"] for payload in batches.invoked}
