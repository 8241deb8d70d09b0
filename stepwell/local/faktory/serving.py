"""Starts and ends the Faktory server of a local server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.types import ASGIApp

from stepwell.local.engine.batch_loop import Unavailable
from stepwell.local.engine.settings import DEFAULT_URL
from stepwell.local.faktory.connection import Connection
from stepwell.local.faktory.jobs import Jobs
from stepwell.local.faktory.later import LaterJobs
from stepwell.local.faktory.options import FaktoryOptions
from stepwell.local.faktory.result_endpoint import ResultEndpoint
from stepwell.local.faktory.server import FaktoryServer
from stepwell.local.faktory.worker_control import WorkerControl
from stepwell.local.http.tls import TlsListener
from stepwell.local.server import LocalServer
from stepwell.local.store.faktory_rows import FaktoryRows

log = logging.getLogger("stepwell.faktory")

_RENEW_S, _TIDY_S = 60.0, 3600.0


@asynccontextmanager
async def faktory_serving(server: LocalServer, options: FaktoryOptions) -> AsyncIterator[Callable[[ASGIApp], ASGIApp]]:
    """Answers clients of Faktory until the context ends. Then connections are closed, and workers connect again later.

    Gives a function that adds the addresses for results of jobs to an application."""
    platform, rows = server.platform, FaktoryRows(server.platform.store.connection)
    jobs = Jobs(platform, server.faktory_runner, rows, server.settings.public_url or DEFAULT_URL)
    later = LaterJobs(platform, rows)
    faktory = FaktoryServer(platform, jobs, later, options.password)
    listening = await _listen(faktory, options)
    server.workers = WorkerControl(faktory.workers)
    duties = [asyncio.create_task(duty) for duty in (faktory.sweep(), later.run(), _tidy(jobs), _renew(options))]
    try:
        yield lambda app: ResultEndpoint(app, jobs)
    finally:
        for duty in duties:
            duty.cancel()
        listening.close()
        await faktory.close()


async def _listen(faktory: FaktoryServer, options: FaktoryOptions) -> TlsListener | asyncio.Server:
    if options.certificate is None:
        return await asyncio.get_running_loop().create_server(lambda: Connection(faktory), sock=options.listener)
    return TlsListener(options.listener, options.certificate, lambda: Connection(faktory), faktory.connections)


async def _tidy(jobs: Jobs) -> None:
    """Removes results of jobs that have ended, until it is cancelled."""
    while True:
        try:
            await jobs.remove_old_results()
        except Unavailable as reason:
            log.warning("old results of jobs are not removed: %s", reason)
        await asyncio.sleep(_TIDY_S)


async def _renew(options: FaktoryOptions) -> None:
    """Reads the certificate again when its files have changed, until it is cancelled."""
    while options.certificate is not None:
        await asyncio.sleep(_RENEW_S)
        await asyncio.to_thread(options.certificate.renew)
