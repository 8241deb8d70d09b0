"""The server that listens: uvicorn, with what it does not bound."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from stepwell.local.connection import Connection
from stepwell.local.room import raise_file_limit

_SWEEP_EVERY = 10  # ticks of a tenth of a second


class WebServer(uvicorn.Server):
    """Answers requests until `should_exit` is set."""

    def __init__(self, app: ASGIApp, drain_s: int = 5, protocol: type[Connection] = Connection) -> None:
        raise_file_limit()
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol,
                lifespan="off",
                ws="none",
                access_log=False,
                log_config=None,
                log_level="warning",
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=drain_s,
            )
        )

    async def on_tick(self, counter: int) -> bool:
        if counter % _SWEEP_EVERY == 0:
            now = asyncio.get_running_loop().time()
            for its in list(self.server_state.connections):
                its.sweep(now)  # type: ignore[union-attr]
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever started us: uvicorn would raise them again before the platform is closed."""
        yield
