"""Turns the result of an attempt into an `Outcome`: stdout, exit code, HTTP status or return value.

The result for any bytes that a step prints is an `Outcome` that can be stored, sent and read again.
"""

from __future__ import annotations

import math
import re
import signal
from collections.abc import Mapping
from dataclasses import field
from datetime import UTC, datetime
from typing import Any

import orjson

from stepwell.core.duration import parse_duration
from stepwell.core.exact_json import Unusable, is_inexact_number, parse_compact, too_deep
from stepwell.core.plain_data import immutable
from stepwell.core.run.messages import Error, Outcome

MAX_OUTPUT_BYTES = 256 * 1024
_LONGEST_DELAY_MS = parse_duration("366d")
_LONGEST_MESSAGE = 2000
_WORTH_A_RETRY = frozenset({408, 425, 429})
_SECONDS = re.compile(r"\d{1,20}(\.\d{1,20})?")
_UNPRINTABLE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@immutable
class ParsedOutput:
    """The parsed output of a step. `text`: the bytes of the output. `log`: the lines before the output."""

    output: bytes | None  # compact JSON text; None if there is a problem
    fields: Mapping[str, Any] = field(default_factory=dict)  # the members of the output, if that is a JSON object
    is_json: bool = True  # False: the output is text, wrapped as `{"body": text}`
    problem: Error | None = None
    log: bytes = b""
    text: bytes = b""


# --- parsing ---------------------------------------------------------------------------------------------------------


def read_json(text: bytes, log: bytes = b"") -> ParsedOutput:
    """Parses a text that should be one JSON value: the result of a handler."""
    try:
        return _parsed(*parse_compact(text), text, log)
    except ValueError as error:
        return ParsedOutput(
            None, problem=Error("invalid_output", printable(f"the output is not JSON: {error}")), text=text
        )
    except Unusable as reason:
        return _invalid(str(reason), text, log)


def read_value(value: object) -> ParsedOutput:
    """Parses the result of a handler that is already decoded from JSON."""
    try:
        return read_json(orjson.dumps(value))
    except TypeError:
        return _invalid(str(too_deep()), b"")


def read_stdout(text: bytes) -> ParsedOutput:
    """Parses the stdout of a step: a JSON value, or a last line that is an object or array, or text.

    A number that cannot be represented exactly is text, because it may be a commit hash or a tracking number.
    """
    if is_inexact_number(text):
        return _parsed_text(text)
    try:
        return _parsed(*parse_compact(text), text)
    except ValueError:
        pass
    except Unusable as reason:
        return _invalid(str(reason), text)
    start = text.rfind(b"\n", 0, len(text.rstrip())) + 1
    last = read_last_line(text[start:], text[:start]) if start else None
    return _parsed_text(text) if last is None else last


def _parsed_text(text: bytes) -> ParsedOutput:
    output = orjson.dumps({"body": text.rstrip(b"\r\n").decode("utf-8", "replace")})
    return (
        _too_large(len(output), text)
        if len(output) > MAX_OUTPUT_BYTES
        else ParsedOutput(output, is_json=False, text=text)
    )


def read_last_line(line: bytes, log: bytes = b"") -> ParsedOutput | None:
    """Parses the last line as the output. None if it is not a JSON object or array."""
    if line.lstrip()[:1] not in (b"{", b"["):
        return None
    try:
        return _parsed(*parse_compact(line), line, log)
    except ValueError:
        return None
    except Unusable as reason:
        return _invalid(str(reason), line, log)


def too_large(size: int) -> ParsedOutput:
    """The parsed form of an output of `size` bytes that is too large to be read."""
    return _too_large(size, b"")


def _parsed(value: Any, output: bytes, text: bytes, log: bytes = b"") -> ParsedOutput:
    if len(output) > MAX_OUTPUT_BYTES:
        return _too_large(len(output), text, log)
    return ParsedOutput(output, value if isinstance(value, dict) else {}, log=log, text=text)


def _invalid(reason: str, text: bytes, log: bytes = b"") -> ParsedOutput:
    message = printable(f"the output is JSON that cannot be stored: {reason}")
    return ParsedOutput(None, problem=Error("invalid_output", message), log=log, text=text)


def _too_large(size: int, text: bytes, log: bytes = b"") -> ParsedOutput:
    message = (
        f"the output has {size:,} bytes, more than the maximum of {MAX_OUTPUT_BYTES:,} (256 KiB); "
        "store it elsewhere and output a reference, such as a URL or a key"
    )
    return ParsedOutput(None, problem=Error("output_too_large", message), log=log, text=text)


# --- outcomes --------------------------------------------------------------------------------------------------------


def from_output(report: ParsedOutput, now: int) -> Outcome:
    """The outcome of an attempt without a failure so far. The output may have a status that makes it a failure.

    `now`: ms since the epoch, for a `retry_after` that is a date.
    """
    if report.problem is not None:
        return Outcome(error=report.problem, retryable=False)
    status = _status(report.fields)
    if status is None:
        return Outcome(output=report.output)
    return _failed("status", f"the output has the status {status}{_reason(report)}", status, report, now)


def from_exit(code: int, report: ParsedOutput, last_line: str, now: int) -> Outcome:
    """The outcome of a program. `code`: the exit code, negative for a signal, as in `subprocess`. `last_line`: the last
    line of stderr."""
    if code == 0:
        return from_output(report, now)
    status = _status(report.fields)
    after = f": {last_line}" if last_line else _reason(report)
    if code < 0:
        return _failed("crash", f"killed by {_signal(-code)}{after}", status, report, now)
    return _failed("exit", f"exit code {code}{after}", status, report, now)


def from_http(
    status: int, report: ParsedOutput, now: int, *, retry_after: str | None = None, location: str | None = None
) -> Outcome:
    """The outcome of an HTTP call. `retry_after`, `location`: the headers with these names."""
    if status < 300:
        outcome = from_output(report, now)
    else:
        where = _redirect(location) if status < 400 else ""
        outcome = _failed("http", f"the response has status {status}{where}{_reason(report)}", status, report, now)
    if outcome.error is None or not outcome.retryable or outcome.retry_after_ms is not None:
        return outcome
    return Outcome(None, outcome.error, outcome.retryable, retry_after_ms(retry_after, now))


def from_worker_failure(message: str, report: ParsedOutput, now: int) -> Outcome:
    """The outcome of an attempt that a worker of another system reports as failed. `report`: what it sent about it."""
    if report.problem is not None:
        report = ParsedOutput(None)
    return _failed("exception", message, _status(report.fields), report, now)


def _redirect(location: str | None) -> str:
    """The explanation of a 3xx status, for a message. Redirects are failures, because a POST is not sent again."""
    if not location:
        return ", which is not a success"
    return f", a redirect to {location}; redirects are not followed, so correct the step's url"


def failure(kind: str, message: str, *, retryable: bool = True) -> Outcome:
    """The outcome of a failure. Unprintable characters in the message are removed."""
    return Outcome(error=Error(kind, printable(message)), retryable=retryable)


def timed_out(timeout_ms: int) -> Outcome:
    return failure("timeout", f"the attempt did not end within the timeout of {timeout_ms / 1000:g} s")


def not_in_output(report: ParsedOutput, outcome: Outcome) -> bytes:
    """The part of stdout that is not in the output or in the error, and so belongs to the log."""
    output = outcome.output if outcome.error is None else outcome.error.output
    return report.log + report.text if output is None else report.log


def _failed(kind: str, message: str, status: int | None, report: ParsedOutput, now: int) -> Outcome:
    retryable = status is None or status >= 500 or status in _WORTH_A_RETRY
    output = report.output if report.fields else None
    delay = retry_after_ms(report.fields.get("retry_after"), now) if retryable else None
    return Outcome(None, Error(kind, printable(message), status, output), retryable, delay)


def _status(fields: Mapping[str, Any]) -> int | None:
    for name in ("status", "statusCode"):
        value = fields.get(name)
        if type(value) is int and 400 <= value < 600:
            return value
    return None


def _reason(report: ParsedOutput) -> str:
    """The explanation of a failure in the output, to be appended to a message."""
    if report.output is not None and not report.is_json:
        text = report.text.strip()[:500].decode("utf-8", "replace")
        return f": {text}" if text else ""
    for name in ("message", "error", "errorMessage"):
        value = report.fields.get(name)
        if isinstance(value, str) and value:
            return f": {value}"
    return ""


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def printable(text: str) -> str:
    """A text without control characters and lone surrogates, cut at 2,000 characters, safe for terminals and JSON."""
    whole = _UNPRINTABLE.sub("", text[: 2 * _LONGEST_MESSAGE]).encode("utf-8", "replace").decode()
    return whole if len(whole) <= _LONGEST_MESSAGE else f"{whole[: _LONGEST_MESSAGE - 3]}..."


# --- retry_after -----------------------------------------------------------------------------------------------------


def retry_after_ms(value: object, now: int) -> int | None:
    """Milliseconds from `now` (ms since the epoch) until a retry, at most 366 days; None if `value` is invalid.

    Valid are seconds as number or text, a duration such as `10s`, an HTTP date (RFC 9110) or an RFC 3339 time.
    """
    if isinstance(value, str):
        delay = _delay_in_text(value.strip(), now)
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        delay = value * 1000
    else:
        delay = None
    return None if delay is None or delay < 0 else round(min(delay, _LONGEST_DELAY_MS))


def _delay_in_text(text: str, now: int) -> float | None:
    if len(text) > 64:
        return None
    if _SECONDS.fullmatch(text):
        return float(text) * 1000
    try:
        return parse_duration(text)
    except ValueError:
        pass
    moment = _moment(text)
    return None if moment is None else max(0.0, moment.timestamp() * 1000 - now)


def _moment(text: str) -> datetime | None:
    from email.utils import parsedate_to_datetime  # imported late: rarely needed, and slow to import

    try:
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo is not None else None
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(text)
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
