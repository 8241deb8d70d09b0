"""`POST /faktory/results/{jid}`: workers send the results of jobs here, since ACK has no field for one.

The address is `custom.stepwell_result_url` of the job. It needs no API key: the id of the job is signed.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from stepwell.api.http.body import read_body
from stepwell.api.http.problem import Problem
from stepwell.core.run.outcome import MAX_OUTPUT_BYTES, read_json
from stepwell.local.engine.batch_loop import Unavailable
from stepwell.local.faktory.jobs import RESULT_PATH, Jobs, UnknownJob

_MOST_BYTES = 2 * MAX_OUTPUT_BYTES  # spaces do not count towards the size of an output


class ResultEndpoint:
    """An ASGI application: takes results of jobs, and passes all other requests to `rest`."""

    def __init__(self, rest: ASGIApp, jobs: Jobs) -> None:
        self._rest, self._jobs = rest, jobs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["path"].startswith(RESULT_PATH):
            await self._rest(scope, receive, send)
            return
        if scope["method"] != "POST":
            raise Problem(405, "send the result of a job with POST", {"allow": "POST"})
        length = dict(scope["headers"]).get(b"content-length")
        await self._take(scope["path"].removeprefix(RESULT_PATH), await read_body(receive, length, _MOST_BYTES))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def _take(self, jid: str, body: bytes) -> None:
        report = read_json(body)
        if report.problem is not None or report.output is None:
            message = "the body is no JSON value" if report.problem is None else report.problem.message
            raise Problem(400, message)
        try:
            is_open = await self._jobs.put_result(jid, report.output)
        except UnknownJob as unknown:
            raise Problem(404, str(unknown)) from None
        except Unavailable as reason:
            raise Problem(503, str(reason)) from None
        if not is_open:
            raise Problem(409, "the job has ended, so the result was not stored")
