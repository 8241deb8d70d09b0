"""Runs that wait for days cost nothing, and `tick` sends thousands of far timers a second."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rehearsal.real.account import Account, Json
from rehearsal.real.checks import Failed, Skipped, check
from stepwell.aws.engine.timers import AHEAD_MS
from stepwell.aws.table.keys import STATUS_INDEX, TIMER_SHARDS, run_key, timer_key, timer_partition, watch_partition
from stepwell.core.run.messages import Timer, TimerKind

TIMERS = 2000
LEAST_A_SECOND = 1000
DAYS = 3
DEFINITION = f"""\
id: check-waiting
triggers: [{{event: check/waiting}}]
steps:
  later:
    path: file://.
    runtime: {{type: lambda, handler: app.handler}}
    after: [{{step: $trigger, wait: {DAYS}d}}]
"""


@check("A run that waits for days has a timer, one index entry, and no watch", seconds=30, usd=0.001)
def a_waiting_run_has_no_watch(account: Account) -> str:
    with TemporaryDirectory() as folder:
        (Path(folder) / "stepwell.yaml").write_text(DEFINITION)
        (Path(folder) / "app.py").write_text("def handler(event, context):\n    return {}\n")
        account.push(Path(folder))
        (event_id,) = account.api.send({"name": "check/waiting"})
        run = account.until("the run waits", lambda: _first(account.api.runs_of(event_id)), 60)
        account.cleanup.callback(account.api.http.delete, f"/v1/runs/{run['id']}")
        item = account.client("dynamodb").get_item(
            TableName=account.resources.table, Key=run_key(run["id"]), ConsistentRead=True
        )["Item"]
        timer = account.until("the far timer is written", lambda: _timer_of(account, run["id"]), 20)
        entries = account.until("the index lists the run", lambda: _entries_of(account, item), 20)
        watches = _find(account, [watch_partition(shard) for shard in range(8)], run["id"])
    days = (int(timer["sk"]["S"].partition("#")[0]) / 1000 - time.time()) / 86_400
    if len(entries) != 1 or watches or not DAYS - 0.01 < days < DAYS + 0.01:
        raise Failed(f"run {run['id']} has {len(entries)} entries, {len(watches)} watches, a timer in {days:.2f} days")
    return f"a timer in {days:.2f} days, one index entry, no watch: nothing reads or writes the run until then"


@check(f"`tick` sends far timers, at least {LEAST_A_SECOND} a second", seconds=40, usd=0.01)
def far_timers_leave_in_parallel(account: Account) -> str:
    """The timers are of runs that do not exist, so their messages have no effect, ten minutes later."""
    _tick(account)  # warms the Lambda
    idle_s = _tick(account)
    due = int(time.time() * 1000) + AHEAD_MS + 10_000  # later than all timers that were sent before
    name = secrets.token_hex(7)
    timers = [(f"check{name}{number:07}", due + number % 1000) for number in range(TIMERS)]
    keys = [timer_key(run_id, Timer(TimerKind.DELAY, 0), at) for run_id, at in timers]
    account.cleanup.callback(_delete, account, keys)
    kind = f"{TimerKind.DELAY.value}.0.0"
    _write(
        account,
        [
            {"PutRequest": {"Item": {**key, "r": {"S": run_id}, "t": {"S": kind}}}}
            for key, (run_id, _) in zip(keys, timers, strict=True)
        ],
    )
    time.sleep(max(0, (due + 1000 - AHEAD_MS) / 1000 - time.time()) + 0.2)
    took_s = _tick(account) - idle_s
    if took_s < TIMERS / 50_000:
        raise Skipped(f"the scheduled `tick` has sent the {TIMERS} timers already; run this check again")
    rate = TIMERS / took_s
    if rate < LEAST_A_SECOND:
        raise Failed(
            f"{TIMERS} timers took {took_s:.1f} s, {rate:.0f} a second; check whether SQS or the table throttles `tick`"
        )
    return f"{TIMERS} timers in {took_s:.2f} s: {rate:,.0f} a second, {rate * 40:,.0f} a minute"


def _tick(account: Account) -> float:
    """Invokes `tick`, and returns the duration in seconds."""
    began = time.monotonic()
    answer = account.client("lambda").invoke(FunctionName=account.engine_lambda("tick"), Payload=b"{}")
    if "FunctionError" in answer:
        raise Failed(f"`tick` fails: {answer['Payload'].read().decode()[:500]}")
    return time.monotonic() - began


def _first(runs: list[Json]) -> Json | None:
    return runs[0] if runs else None


def _timer_of(account: Account, run_id: str) -> Json | None:
    return _first(_find(account, [timer_partition(shard) for shard in range(TIMER_SHARDS)], run_id))


def _entries_of(account: Account, item: Json) -> list[Json]:
    found: list[Json] = account.client("dynamodb").query(
        TableName=account.resources.table,
        IndexName=STATUS_INDEX,
        KeyConditionExpression="gk = :gk AND gs = :gs",
        ExpressionAttributeValues={":gk": item["gk"], ":gs": item["gs"]},
    )["Items"]
    return [entry for entry in found if entry["pk"] == item["pk"]]


def _find(account: Account, partitions: list[str], run_id: str) -> list[Json]:
    """The items of these partitions whose sort key contains the run id."""
    pages = account.client("dynamodb").get_paginator("query")
    return [
        item
        for partition in partitions
        for page in pages.paginate(
            TableName=account.resources.table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": partition}},
        )
        for item in page["Items"]
        if run_id in item["sk"]["S"]
    ]


def _delete(account: Account, keys: list[Json]) -> None:
    _write(account, [{"DeleteRequest": {"Key": key}} for key in keys])


def _write(account: Account, requests: list[Json]) -> None:
    client, table = account.client("dynamodb"), account.resources.table
    while requests:
        answer: Any = client.batch_write_item(RequestItems={table: requests[:25]})
        requests = [*answer.get("UnprocessedItems", {}).get(table, []), *requests[25:]]
