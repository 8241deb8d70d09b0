"""Runs `http` steps: POSTs the input to the step's URL and returns a report of the response.

The engine turns the report into an outcome. Calls are independent: there are no cookies, redirects, retries or reused
connections.
"""

from __future__ import annotations

import asyncio
import base64
import random
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import orjson

from stepwell.aws.clients import client
from stepwell.aws.naming import dotenv_parameter, secret_parameter
from stepwell.aws.resources import Resources
from stepwell.core.run.outcome import (
    ParsedOutput,
    from_http,
    not_in_output,
    read_last_line,
    read_stdout,
    timed_out,
    too_large,
)
from stepwell.outbound import AsyncTransport, BadEnvironment, tls_problem

Report = dict[str, Any]

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_PIECE = 64 * 1024
_LARGEST = 1024 * 1024  # bytes of a text that may be an output; more than an output, as storing it drops white space
_MOST_LOG = 4 * 1024 * 1024
_CUT = b"\nthe log is cut here: an attempt keeps at most 4 MiB\n"
_REPORTED = 270 * 1024  # bytes; a larger response is reported as the output only
_SPARE_MS = 1000  # for the report, before Lambda ends the invocation
_CACHE_S = 60.0
_SSM_RETRIES_S = 8.0  # how long throttled requests to SSM are retried, out of the attempt's time


class _CannotRun(Exception):
    """The call cannot be made. The message gives the reason, and contains no secret."""

    def __init__(self, message: str, *, kind: str = "start", retryable: bool = False) -> None:
        super().__init__(message)
        self.kind, self.retryable = kind, retryable


class HttpSteps:
    def __init__(self, resources: Resources) -> None:
        self._env = resources.env
        self._parameters: dict[str, tuple[str | None, float]] = {}  # name -> (value, monotonic time of expiry)

    def call(self, order: Mapping[str, Any], remaining_ms: int) -> Report:
        """Executes one attempt and returns the report. `order`: the payload that `LambdaDispatcher` sends."""
        url, timeout_ms = order["url"], order["timeout_ms"]
        document = order["input"]
        document["ctx"].pop("token", None)  # for the engine only
        try:
            headers = self._headers(order)
            within = min(timeout_ms, remaining_ms - _SPARE_MS) / 1000
            return asyncio.run(_post(url, headers, orjson.dumps(document), within))
        except _CannotRun as reason:
            return _error(reason.kind, str(reason), retryable=reason.retryable)
        except TimeoutError:
            error = timed_out(timeout_ms).error
            assert error is not None
            return _error(error.kind, error.message)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            return _error("start", f"{url}: {error}", retryable=False)
        except BadEnvironment as error:
            return _error("start", f"{url}: {error}")
        except (httpx.HTTPError, OSError) as error:
            why = tls_problem(error, url) or str(error) or type(error).__name__
            return _error("http", f"no answer from {url}: {why}")

    def _headers(self, order: Mapping[str, Any]) -> dict[str, str]:
        """The request's headers. `${NAME}` in the step's headers is replaced with the variable or secret NAME.

        Raises _CannotRun.
        """
        headers = {
            "content-type": "application/json",
            "accept-encoding": "identity",  # a small compressed response could unpack to a huge one
            "idempotency-key": order["input"]["ctx"]["idempotency_key"],
        }
        templates: dict[str, str] = order["headers"]
        wanted = {name: set(_VARIABLE.findall(template)) for name, template in templates.items()}
        values = self._values(order) if any(wanted.values()) else {}

        def fill(match: re.Match[str]) -> str:
            return values.get(match[1], match[0])

        for name, template in templates.items():
            for unknown in wanted[name] - values.keys():
                _log(f"the header {name} names ${{{unknown}}}, which is neither in env nor in secrets\n")
            value = _VARIABLE.sub(fill, template)
            if not value.isprintable() or not value.isascii():  # the message must not contain the value, a secret
                raise _CannotRun(f"the header {name} gets a value that is not one line of ASCII characters")
            headers[name.lower()] = value
        return headers

    def _values(self, order: Mapping[str, Any]) -> dict[str, str]:
        """The step's variables and secrets. Secrets override `env`, and `env` overrides `.env`."""
        ctx = order["input"]["ctx"]
        dotenv = dotenv_parameter(self._env, ctx["function_id"], ctx["step_id"])
        secrets = {name: secret_parameter(self._env, name) for name in order.get("secrets", ())}
        found = self._read([dotenv, *secrets.values()])
        values: dict[str, str] = orjson.loads(found.get(dotenv, "{}"))
        values |= order.get("env", {})
        return values | {name: found[text] for name, text in secrets.items() if text in found}

    def _read(self, names: Sequence[str]) -> dict[str, str]:
        """The values of the SSM parameters that exist, cached for a minute. Raises _CannotRun."""
        now = time.monotonic()
        expired = [name for name in names if self._parameters.get(name, (None, 0.0))[1] <= now]
        for start in range(0, len(expired), 10):
            page = expired[start : start + 10]
            answer = self._get_parameters(page)
            read = {parameter["Name"]: parameter["Value"] for parameter in answer["Parameters"]}
            self._parameters.update({name: (read.get(name), now + _CACHE_S) for name in page})
        return {name: value for name in names if (value := self._parameters[name][0]) is not None}

    def _get_parameters(self, names: Sequence[str]) -> Any:
        """The response of GetParameters. Throttled requests are retried for some seconds: the default limit is 40 a
        second for an account. Raises _CannotRun. https://docs.aws.amazon.com/general/latest/gr/ssm.html"""
        until, longest = time.monotonic() + _SSM_RETRIES_S, 0.5
        while True:
            try:
                return client("ssm").get_parameters(Names=names, WithDecryption=True)
            except Exception as error:
                pause = random.uniform(0, longest)
                if not _is_throttled(error) or time.monotonic() + pause > until:
                    why = f"the step's variables and secrets cannot be read from SSM: {error}"
                    raise _CannotRun(why, kind="values_unavailable", retryable=True) from None
            time.sleep(pause)
            longest = min(2 * longest, 4)


def _is_throttled(error: Exception) -> bool:
    code = getattr(error, "response", {}).get("Error", {}).get("Code", "")
    return code in ("ThrottlingException", "TooManyUpdates")


async def _post(url: str, headers: Mapping[str, str], content: bytes, within_s: float) -> Report:
    body = _Body()
    async with (
        asyncio.timeout(within_s),
        httpx.AsyncClient(transport=AsyncTransport(), timeout=None, follow_redirects=False) as http,
        http.stream("POST", url, content=content, headers=headers) as response,
    ):
        async for piece in response.aiter_bytes(_PIECE):
            body.feed(piece)
    return body.report(response.status_code, response.headers)


class _Body:
    """The body of a response. Holds at most twice `_LARGEST` bytes; the beginning of a longer body goes to the log."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._size = 0
        self._room = _MOST_LOG

    def feed(self, piece: bytes) -> None:
        self._size += len(piece)
        self._text += piece
        if len(self._text) > 2 * _LARGEST:
            self._drop(bytes(self._text[:-_LARGEST]))
            del self._text[:-_LARGEST]

    def _drop(self, text: bytes) -> None:
        if 0 < self._room <= len(text):
            text = text[: self._room] + _CUT
        if self._room > 0:
            _log(text.decode("utf-8", "replace"))
        self._room -= len(text)

    def report(self, status: int, headers: Mapping[str, str]) -> Report:
        report = self._read()
        fields = {"retry_after": headers.get("retry-after"), "location": headers.get("location")}
        outcome = from_http(status, report, time.time_ns() // 1_000_000, **fields)
        _log(not_in_output(report, outcome).decode("utf-8", "replace"))
        body: bytes = bytes(self._text)
        if self._size > _REPORTED:
            body = b"" if report.output is None else report.output if report.is_json else report.text.rstrip()
        return {
            "stepwell": 1,
            "http": status,
            "body": base64.b64encode(body).decode(),
            "size": self._size,
            "long": self._size > _REPORTED and report.output is None,
            **fields,
            "error": None,
        }

    def _read(self) -> ParsedOutput:
        text = bytes(self._text)
        if self._size <= _LARGEST:
            return read_stdout(text)
        start = text.rfind(b"\n", 0, len(text.rstrip())) + 1
        is_whole = start > 0 or self._size == len(text)
        report = read_last_line(text[start:], text[:start]) if is_whole else None
        if report is None:
            _log(text.decode("utf-8", "replace"))
            return too_large(self._size)
        return report


def _error(kind: str, message: str, *, retryable: bool = True) -> Report:
    return {"stepwell": 1, "http": 0, "error": {"kind": kind, "message": message, "retryable": retryable}}


def _log(text: str) -> None:
    """Writes to the invocation's log, which is also the attempt's log."""
    if text:
        print(text, end="" if text.endswith("\n") else "\n", flush=True)
