"""Ends a server process: gracefully at the first signal, without waiting for running steps at the second.

If the shutdown hangs, the process exits shortly after the grace period: `docker stop` kills after ten seconds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import NoReturn

log = logging.getLogger("stepwell.server")

GRACE_S = 6.0
CLOSING_S = 3.0  # time to kill the steps that still run, and to close the database


async def until_stopped(main: Callable[[], Coroutine[None, None, None]], grace_s: float) -> None:
    """Runs `main` until it returns, or until SIGINT or SIGTERM cancels it. Each signal cancels it once more."""
    task = asyncio.ensure_future(main())
    signals = 0

    def stop() -> None:
        nonlocal signals
        signals += 1
        task.cancel()
        if signals <= 2:
            _end_after(CLOSING_S + (grace_s if signals == 1 else 0))

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not signals:
            raise


def _end_after(seconds: float) -> None:
    """Ends the process after some seconds, from a thread, because the event loop itself may hang."""

    def end() -> None:
        log.error("shutdown not finished after %.0f s; exiting now, runs continue at the next start", seconds)
        end_process(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def end_process(code: int) -> NoReturn:
    """Ends the process without waiting for other threads."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    os._exit(code)
