"""Steps that are web addresses: the input is POSTed, and what came back is reported; the engine judges it.

One rule: a call has no memory. No cookies, no redirects, no retries of its own, no connection that is used again.
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
from stepwell.core.run.outcome import Said, from_http, read_last_line, read_stdout, timed_out, too_large, unsaid
from stepwell.outbound import AsyncTransport, BadEnvironment, tls_problem

Report = dict[str, Any]

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_PIECE = 64 * 1024
_LARGEST = 1024 * 1024  # of a text that may be an output: JSON shrinks when it is stored, by its spaces and escapes
_MOST_LOG = 4 * 1024 * 1024
_CUT = b"\nthe log is cut here: an attempt keeps at most 4 MiB\n"
_REPORTED = 270 * 1024  # bytes of an answer that are reported as they came
_SPARE_MS = 1000  # for the report, before Lambda ends the invocation
_CACHE_S = 60.0
_PATIENCE_S = 8.0  # with SSM, of what an attempt has


class _CannotRun(Exception):
    """The call cannot be made; the message says why, and shows no secret."""

    def __init__(self, message: str, *, kind: str = "start", retryable: bool = False) -> None:
        super().__init__(message)
        self.kind, self.retryable = kind, retryable


class HttpSteps:
    def __init__(self, resources: Resources) -> None:
        self._env = resources.env
        self._parameters: dict[str, tuple[str | None, float]] = {}  # with the time until which it counts

    def call(self, order: Mapping[str, Any], remaining_ms: int) -> Report:
        """Execute one attempt, as the dispatcher orders it; answers its report."""
        url, timeout_ms = order["url"], order["timeout_ms"]
        document = order["input"]
        document["ctx"].pop("token", None)  # it is between us and the engine
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
        """The configured headers, in which `${NAME}` is the variable or secret of that name. Raises _CannotRun."""
        headers = {
            "content-type": "application/json",
            "accept-encoding": "identity",  # an answer cannot unpack to more than was sent
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
            if not value.isprintable() or not value.isascii():  # the message must not show a secret
                raise _CannotRun(f"the header {name} gets a value that is not one line of ASCII characters")
            headers[name.lower()] = value
        return headers

    def _values(self, order: Mapping[str, Any]) -> dict[str, str]:
        """The step's variables: `.env` < `env` < `secrets`."""
        ctx = order["input"]["ctx"]
        dotenv = dotenv_parameter(self._env, ctx["function_id"], ctx["step_id"])
        secrets = {name: secret_parameter(self._env, name) for name in order.get("secrets", ())}
        found = self._read([dotenv, *secrets.values()])
        values: dict[str, str] = orjson.loads(found.get(dotenv, "{}"))
        values |= order.get("env", {})
        return values | {name: found[text] for name, text in secrets.items() if text in found}

    def _read(self, names: Sequence[str]) -> dict[str, str]:
        """Those of these SSM parameters that exist, as they were at most a minute ago."""
        now = time.monotonic()
        asked = [name for name in names if self._parameters.get(name, (None, 0.0))[1] <= now]
        for start in range(0, len(asked), 10):
            some = asked[start : start + 10]
            answer = self._ask(some)
            read = {parameter["Name"]: parameter["Value"] for parameter in answer["Parameters"]}
            self._parameters.update({name: (read.get(name), now + _CACHE_S) for name in some})
        return {name: value for name in names if (value := self._parameters[name][0]) is not None}

    def _ask(self, names: Sequence[str]) -> Any:
        """GetParameters, of which an account has 40 a second unless its throughput was raised: asked for some seconds
        where there are too many. https://docs.aws.amazon.com/general/latest/gr/ssm.html"""
        until, longest = time.monotonic() + _PATIENCE_S, 0.5
        while True:
            try:
                return client("ssm").get_parameters(Names=names, WithDecryption=True)
            except Exception as error:
                pause = random.uniform(0, longest)
                if not _is_throttled(error) or time.monotonic() + pause > until:
                    why = f"its variables and secrets cannot be read from SSM: {error}"
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
    """An answer, of which no more is held than an output can be: what comes before the last of it goes to the log."""

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
        _log(unsaid(report, outcome).decode("utf-8", "replace"))
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

    def _read(self) -> Said:
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
    """Into the invocation's log, which is the attempt's."""
    if text:
        print(text, end="" if text.endswith("\n") else "\n", flush=True)
