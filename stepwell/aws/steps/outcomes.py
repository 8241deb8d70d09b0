"""Reads the `Outcome` of an attempt from a record of Lambda's destinations, or from a report of the adapter.

Invalid records and reports give failed outcomes, not exceptions. `core.run.outcome` has the rules for outputs.
"""

from __future__ import annotations

import base64
import json
import re
from contextlib import suppress
from typing import Any

import orjson

from stepwell.core.plan import Step
from stepwell.core.run.messages import Outcome
from stepwell.core.run.module_outcome import from_module
from stepwell.core.run.outcome import (
    ParsedOutput,
    failure,
    from_exit,
    from_http,
    from_output,
    printable,
    read_json,
    read_last_line,
    read_stdout,
    read_value,
    timed_out,
    too_large,
)

_LONG_NUMBER = re.compile(rb"\d{19}")
_MEMBER = re.compile(r'\s*[{,]\s*"([^"]*)"\s*:\s*')
_EXIT_STATUS = re.compile(r"exit status (\d+)")
_TOO_LARGE = ("Stepwell.OutputTooLarge", "Function.ResponseSizeTooLarge")  # from the adapter; from Lambda, above 6 MB
_UNAVAILABLE = "Stepwell.Unavailable"  # from the adapter: the values in SSM cannot be read now
_NO_HANDLER = ("Runtime.HandlerNotFound", "Runtime.MalformedHandlerName", "Runtime.InvalidEntrypoint")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_STRICT = json.JSONDecoder(parse_constant=_no_constant)


def read_body(body: bytes) -> Any:
    """The JSON of a message. Raises ValueError.

    If orjson rejects the message, or would turn large integers into floats, the result has an additional member
    `payload_text`: the text of `responsePayload`. `responsePayload` is missing if it cannot be parsed at all.
    """
    if not _LONG_NUMBER.search(body):
        with suppress(ValueError):
            return orjson.loads(body)
    return _read_members(body.decode())


def _read_members(text: str) -> dict[str, Any]:
    """The members of a JSON object, parsed one by one.

    A handler may return a `responsePayload` that is not JSON (Python's NaN), has half a surrogate pair, or is nested
    too deeply. The other members are read all the same.
    """
    members: dict[str, Any] = {}
    at = 0
    while member := _MEMBER.match(text, at):
        name, start = member[1], member.end()
        try:
            members[name], at = _STRICT.raw_decode(text, start)
        except (ValueError, RecursionError):
            if name != "responsePayload":
                raise ValueError(f"{name} cannot be read") from None
            return members | {"payload_text": text[start:].rstrip()[:-1]}
        if name == "responsePayload":
            members["payload_text"] = text[start:at]
    if not members or text[at:].strip() != "}":
        raise ValueError("not a JSON object")
    return members


def outcome_of_destination(record: dict[str, Any], step: Step, now: int) -> Outcome:
    """The outcome in a record of Lambda's destinations. `now`: ms since the epoch."""
    payload, context = record.get("responsePayload"), record.get("responseContext", {})
    condition = record.get("requestContext", {}).get("condition", "Success")
    if context.get("functionError"):
        return _of_function_error(payload if isinstance(payload, dict) else {}, step)
    if condition != "Success":
        return failure("crash", f"Lambda did not complete the invocation and gave no reason: {condition}")
    if step.runtime.type == "lambda" and (step.runtime.handler is not None or step.runtime.arn is not None):
        has_text = "payload_text" in record
        report = read_json(record["payload_text"].encode()) if has_text else read_value(payload)
        return from_output(report, now)
    return outcome_of_report(payload, now, step.timeout_ms, step.runtime.memory)


def outcome_of_report(report: Any, now: int, timeout_ms: int, memory: int | None = None) -> Outcome:
    """The outcome in a report of the adapter, or of the Lambda `step_http`. `memory`: the runtime's, in MB."""
    if not isinstance(report, dict) or report.get("stepwell") != 1:
        return failure("crash", "the step's runtime returned no report; was the step's Lambda changed by hand?")
    try:
        return _of_http(report, now) if "http" in report else _of_program(report, now, timeout_ms, memory)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        return failure("crash", f"the report of the step's runtime cannot be read: {error!r}")


def _of_program(report: dict[str, Any], now: int, timeout_ms: int, memory: int | None) -> Outcome:
    if report.get("start_error"):
        start_error = report["start_error"]
        return failure(
            str(start_error.get("kind") or "start"),
            str(start_error["message"]),
            retryable=bool(start_error["retryable"]),
        )
    if report.get("timed_out"):
        return timed_out(timeout_ms)
    tail = printable(str(report.get("tail", ""))[-500:]).strip()
    if module := report.get("module"):
        output = _output(report, "stdout")
        return from_module(str(module["kind"]), str(module["text"]), output, tail, now, memory)
    code = -int(report["signal"]) if report.get("signal") else int(report["exit"])
    return from_exit(code, _output(report, "stdout"), tail, now)


def _of_http(report: dict[str, Any], now: int) -> Outcome:
    if report.get("error"):
        error = report["error"]
        return failure(str(error["kind"]), str(error["message"]), retryable=bool(error.get("retryable", True)))
    value, fields = _output(report, "body"), {name: report.get(name) for name in ("retry_after", "location")}
    return from_http(int(report["http"]), value, now, **fields)


def _output(report: dict[str, Any], field: str) -> ParsedOutput:
    text = base64.b64decode(report.get(field, ""))
    if not report.get("long"):
        return read_stdout(text)
    return (read_last_line(text) if text else None) or too_large(int(report["size"]))


def _of_function_error(error: dict[str, Any], step: Step) -> Outcome:
    kind, message = str(error.get("errorType", "")), str(error.get("errorMessage", ""))
    if kind == "Sandbox.Timedout" or "Task timed out after" in message:
        return timed_out(step.timeout_ms)
    if kind in _TOO_LARGE:
        return from_output(too_large(_number(message)), 0)
    if kind == "Runtime.ExitError" or kind == "Runtime.OutOfMemory":
        return failure("crash", _crash(message))
    if kind == _UNAVAILABLE:
        return failure("values_unavailable", message)
    if kind in _NO_HANDLER:
        return failure("start", message, retryable=False)
    return failure("exception", f"{kind}: {message}" if kind else message or "the function failed without a message")


def _crash(message: str) -> str:
    status = _EXIT_STATUS.search(message)
    if status:
        return f"the handler's process ended with exit code {status[1]} before the handler returned"
    if "signal: killed" in message:
        return "killed by SIGKILL: did it need more memory than the step's `memory`?"
    return message.partition("Error: ")[2] or message or "the step's process ended before it returned a result"


def _number(message: str) -> int:
    found = re.search(r"\d{6,}", message)
    return int(found[0]) if found else 0
