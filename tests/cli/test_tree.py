"""How `stepwell runs show` draws a run."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from stepwell.cli.ui.tree import run_tree

RUN: dict[str, Any] = {
    "id": "r",
    "function_id": "f",
    "function_version": 1,
    "event_id": "e",
    "status": "cancelled",
    "created_at": "2026-06-01T10:00:00.000Z",
    "ended_at": "2026-06-01T12:00:00.000Z",
    "replay": None,
    "cancelled_by": None,
    "cancel": [],
    "output": None,
    "error": None,
    "steps": {},
}


def drawn(**fields: object) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(run_tree({**RUN, **fields}))
    return captured.get()


@pytest.mark.parametrize("limit", ["start", "finish"])
def test_a_run_that_exceeded_its_timeouts_shows_the_reason_and_the_limit(limit: str) -> None:
    assert f"cancelled, reason: timeout (`{limit}` of `timeouts`)" in drawn(reason="timeout", timeout=limit)


def test_a_run_of_an_older_server_shows_no_reason() -> None:
    assert "reason" not in drawn()
