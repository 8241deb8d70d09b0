"""Where the Faktory server listens, and with which password. It is imported by every server, so it is small."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.types import ASGIApp

from stepwell.local.http.listening import url_of
from stepwell.local.server import LocalServer

if TYPE_CHECKING:
    from stepwell.local.http.tls import Certificate


@dataclass(frozen=True, slots=True)
class FaktoryOptions:
    """`listener`: a listening socket. `password`: empty if clients need none. `certificate`: for TLS; None: without."""

    listener: socket.socket
    password: str = ""
    certificate: Certificate | None = None

    @property
    def url(self) -> str:
        """The address for clients on this machine, without the password."""
        return url_of(self.listener, "tcp" if self.certificate is None else "tcp+tls")


@asynccontextmanager
async def with_faktory(
    server: LocalServer, options: FaktoryOptions | None
) -> AsyncIterator[Callable[[ASGIApp], ASGIApp] | None]:
    """Runs the Faktory server, if there are options for it. See `serving.faktory_serving`."""
    if options is None:
        yield None
        return
    from stepwell.local.faktory.serving import faktory_serving  # imported late: few servers need it

    async with faktory_serving(server, options) as around:
        yield around
