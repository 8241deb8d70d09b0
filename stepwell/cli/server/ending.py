"""How a server process ends: in order at the first signal, without waiting for what runs at the second, and at the
latest a moment after the time that it was given. `docker stop` kills after ten seconds."""

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
CLOSING_S = 3.0  # to kill what still runs, and to close the database


async def until_stopped(main: Callable[[], Coroutine[None, None, None]], grace_s: float) -> None:
    """Run `main` until it returns, or until SIGINT or SIGTERM cancel it. Each signal cancels it once more."""
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
    """A thread, since the event loop may be what hangs."""

    def end() -> None:
        log.error(
            "the server does not end in order in %.0f s, so it ends at once; its runs go on when it starts", seconds
        )
        end_process(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def end_process(code: int) -> NoReturn:
    """End without waiting for threads that do what nobody needs any more."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    os._exit(code)
