"""Details of runs for the API, made from rows: state, attempts, and why waits have not matched."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import orjson

from stepwell.core.compile import compile_plan
from stepwell.core.plan import Plan
from stepwell.core.run.inputs import match_answer
from stepwell.core.run.run import PauseStatus
from stepwell.local.queries.run_texts import RunRow
from stepwell.local.store.long_texts import whole
from stepwell.local.store.run_parts import read_run
from stepwell.reader import AttemptRow, RunDetail

_ATTEMPTS = (
    f"SELECT run, step, attempt, status, queued_at, started_at, ended_at, {whole('output')}, {whole('error')}"
    " FROM attempts"
)


class RunDetails:
    """Makes details. Safe to use from any thread. Plans are cached, because versions never change."""

    def __init__(self) -> None:
        self._plans: dict[tuple[str, int], Plan] = {}

    def of(self, connection: sqlite3.Connection, rows: Sequence[RunRow]) -> list[RunDetail]:
        """The details of runs, without logs. Reads the attempts of all runs with one statement."""
        if not rows:
            return []
        attempts: dict[int, list[AttemptRow]] = defaultdict(list)
        sql = f"{_ATTEMPTS} WHERE run IN ({','.join('?' * len(rows))}) ORDER BY run, step, attempt"
        for seq, *attempt in connection.execute(sql, [row.seq for row in rows]):
            attempts[seq].append(AttemptRow(*attempt))
        return [
            RunDetail(
                read_run(connection, row.seq, row.id, row.state), self.plan(connection, row.function, row.version),
                row.event_id, row.user, row.rerun_of, attempts[row.seq], {}, {}, row.replay,
            )
            for row in rows
        ]  # fmt: skip

    def plan(self, connection: sqlite3.Connection, function: str, version: int) -> Plan:
        """The compiled definition of a version."""
        plan = self._plans.get((function, version))
        if plan is None:
            sql = "SELECT definition FROM versions WHERE function = ? AND version = ?"
            (definition,) = connection.execute(sql, (function, version)).fetchone()
            plan = self._plans[function, version] = compile_plan(orjson.loads(definition), version)
        return plan


def mismatches_of(
    connection: sqlite3.Connection, detail: RunDetail, event: dict[str, Any], after: int
) -> dict[int, str]:
    """Why `match` fails for the newest event of the awaited name, by pause.

    It is evaluated when a run is read. To store the result would cost a write for each event that is compared."""
    found, plan, run, rows = {}, detail.plan, detail.run, detail.attempts
    sql = (
        "SELECT body FROM events WHERE name = ? AND seq > ? AND accepted_at < ? AND replay IS NULL"
        " ORDER BY seq DESC LIMIT 1"
    )
    outputs = {row.step: row.output for row in rows if row.output is not None}
    errors = {row.step: row.error for row in rows if row.error is not None}
    for p, (pause, state) in enumerate(zip(plan.pauses, run.pauses, strict=True)):
        if state.status not in (PauseStatus.AWAITING, PauseStatus.EXPIRED):
            continue
        newest = connection.execute(sql, (pause.event, after, state.due_at)).fetchone()
        if newest is not None:
            problem = match_answer(plan, p, event, outputs, errors, orjson.loads(newest[0])).problem
            if problem is not None:
                found[p] = problem
    return found
