"""Steps that call a URL: the input is POSTed, and the response is read like stdout.

Calls are independent of each other: no cookies, no redirects, no retries by the client.
"""

from __future__ import annotations

import re
import time
from functools import partial
from typing import TYPE_CHECKING

from stepwell.core.run.messages import Outcome
from stepwell.core.run.outcome import failure, from_http, not_in_output
from stepwell.local.runners.job import CannotRun, End, Job, Log, Running
from stepwell.local.runners.stdout import StdoutReader
from stepwell.local.runners.task import TaskAttempt

if TYPE_CHECKING:
    import httpx

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_PIECE = 64 * 1024


class HttpRunner:
    def __init__(self) -> None:
        self._client: httpx.AsyncClient | None = None

    def start(self, job: Job, log: Log, end: End) -> Running:
        return TaskAttempt(partial(self._call, job, log), job.step.timeout_ms, end)

    async def _call(self, job: Job, log: Log) -> Outcome:
        from http.cookiejar import CookieJar, DefaultCookiePolicy

        import httpx  # takes 0.1 s, and few servers have such steps

        from stepwell.outbound import AsyncTransport, BadEnvironment, tls_problem

        if self._client is None:
            limits = httpx.Limits(max_connections=None, keepalive_expiry=30)
            self._client = httpx.AsyncClient(
                transport=AsyncTransport(limits=limits),
                timeout=None,
                follow_redirects=False,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            )
        try:
            return await _post(self._client, job, log)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            return failure("start", f"{job.step.runtime.url}: {error}", retryable=False)
        except BadEnvironment as error:
            return failure("start", f"{job.step.runtime.url}: {error}")
        except (httpx.HTTPError, OSError) as error:
            url = job.step.runtime.url or ""
            return failure(
                "http", f"no answer from {url}: {tls_problem(error, url) or str(error) or type(error).__name__}"
            )

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()


async def _post(client: httpx.AsyncClient, job: Job, log: Log) -> Outcome:
    reader = StdoutReader(log)
    url, given = job.step.runtime.url or "", request_headers(job, log)
    async with client.stream("POST", url, content=job.input, headers=given) as response:
        async for piece in response.aiter_bytes(_PIECE):
            reader.feed(piece)
    report = reader.finish()
    now, headers = time.time_ns() // 1_000_000, response.headers
    outcome = from_http(
        response.status_code, report, now, retry_after=headers.get("retry-after"), location=headers.get("location")
    )
    if rest := not_in_output(report, outcome):
        log("stdout", rest)
    return outcome


def request_headers(job: Job, log: Log) -> dict[str, str]:
    """The configured headers, with `${NAME}` replaced by the variable or secret of that name. Raises CannotRun."""
    headers = {
        "content-type": "application/json",
        "accept-encoding": "identity",  # so that a response cannot unpack to more than was sent
        "idempotency-key": f"{job.run_id}/{job.step.id}",
    }
    for name, template in job.step.runtime.headers:
        for unknown in {variable for variable in _VARIABLE.findall(template) if variable not in job.env}:
            log("system", f"the header {name} names ${{{unknown}}}, which is neither in env nor in secrets\n".encode())
        value = _VARIABLE.sub(lambda match: job.env.get(match[1], match[0]), template)
        if not value.isprintable() or not value.isascii():  # the message must not show a secret
            raise CannotRun(f"the header {name} gets a value that is not one line of ASCII characters")
        headers[name.lower()] = value
    return headers
