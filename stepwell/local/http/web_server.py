"""The web server: uvicorn, with the connections, limits and TLS of this package."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from stepwell.local.http.connection import Connection
from stepwell.local.http.connection_limit import raise_file_limit
from stepwell.local.http.tls import Certificate, TlsListener

_SWEEP_EVERY = 10  # ticks of a tenth of a second
_RENEW_EVERY = 600


class WebServer(uvicorn.Server):
    """Answers requests until `should_exit` is set."""

    def __init__(
        self,
        app: ASGIApp,
        drain_s: int = 5,
        protocol: type[Connection] = Connection,
        certificate: Certificate | None = None,
    ) -> None:
        raise_file_limit()
        self._certificate = certificate
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

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets if self._certificate is None else [])
        if self._certificate is not None:
            for listener in sockets or ():
                encrypted = TlsListener(listener, self._certificate, self._connection, self.server_state.connections)
                self.servers.append(encrypted)  # type: ignore[arg-type]

    def _connection(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    async def on_tick(self, counter: int) -> bool:
        if counter % _SWEEP_EVERY == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                connection.sweep(now)  # type: ignore[union-attr]
        if self._certificate is not None and counter % _RENEW_EVERY == 0:
            await asyncio.to_thread(self._certificate.renew)
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to the caller: uvicorn would raise them again before the platform is closed."""
        yield
