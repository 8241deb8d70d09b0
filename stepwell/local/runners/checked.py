"""Attempts that start after a check in a thread: changed code does not run, and modules are compiled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from stepwell.core.run.messages import Outcome
from stepwell.core.run.outcome import failure
from stepwell.local.runners.job import End, Running
from stepwell.local.runners.program import STOPPED, start_failure


class CheckedAttempt:
    """Runs `check` in a thread; if that returns None (no problem), `begin` starts the attempt.

    With the shared lock `turn`, one such attempt begins per iteration of the event loop: most start a process, which
    blocks the loop."""

    def __init__(
        self, check: Callable[[], str | None], begin: Callable[[], Running], end: End, turn: asyncio.Lock
    ) -> None:
        self._check, self._begin, self._end, self._turn = check, begin, end, turn
        self._running: Running | None = None
        self._is_stopped = False
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        outcome = await self._check_code()
        async with self._turn:
            self._begin_or_end(outcome)
            await asyncio.sleep(0)

    def _begin_or_end(self, outcome: Outcome | None) -> None:
        if self._is_stopped:
            self._end(STOPPED)
        elif outcome is not None:
            self._end(outcome)
        else:
            try:
                self._running = self._begin()
            except Exception as error:
                self._end(start_failure(error))

    async def _check_code(self) -> Outcome | None:
        try:
            problem = await asyncio.to_thread(self._check)
        except Exception as error:
            return start_failure(error)
        return None if problem is None else self._failure(problem)

    def _failure(self, problem: str) -> Outcome:
        return failure("code_changed", problem, retryable=False)

    def stop(self) -> None:
        self._is_stopped = True
        if self._running is not None:
            self._running.stop()


class PreparedAttempt(CheckedAttempt):
    """As a CheckedAttempt, but `check` prepares the start, for example by compiling."""

    def _failure(self, problem: str) -> Outcome:
        return failure("start", problem, retryable=False)
