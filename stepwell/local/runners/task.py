"""Attempts that are coroutines instead of processes: HTTP calls and containers.

However the coroutine ends, `end` is called once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from stepwell.core.run.messages import Outcome
from stepwell.core.run.outcome import timed_out
from stepwell.local.runners.job import End
from stepwell.local.runners.program import STOPPED, start_failure


class TaskAttempt:
    """Runs `work()` within the timeout. The timeout and `stop` cancel it."""

    def __init__(self, work: Callable[[], Awaitable[Outcome]], timeout_ms: int, end: End) -> None:
        self._end = end
        self._task = asyncio.get_running_loop().create_task(_within(work, timeout_ms))
        self._task.add_done_callback(self._done)

    def stop(self) -> None:
        self._task.cancel()

    def _done(self, task: asyncio.Task[Outcome]) -> None:
        if task.cancelled():
            self._end(STOPPED)
        elif error := task.exception():
            self._end(start_failure(error))
        else:
            self._end(task.result())


async def _within(work: Callable[[], Awaitable[Outcome]], timeout_ms: int) -> Outcome:
    timeout = asyncio.timeout(timeout_ms / 1000)
    try:
        async with timeout:
            return await work()
    except TimeoutError:
        if timeout.expired():
            return timed_out(timeout_ms)
        raise
