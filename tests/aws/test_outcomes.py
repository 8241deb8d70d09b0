"""The outcome for each answer that a step, the adapter or Lambda itself can give."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.aws.steps.outcomes import outcome_of_destination, outcome_of_report, read_body
from stepwell.core.compile import compile_plan
from stepwell.core.definition.definition import parse_definition
from stepwell.core.plan import Step
from stepwell.core.run.messages import Error, Outcome

Json = dict[str, Any]
NOW = 1_780_308_030_000
TIMEOUT_MS = 900_000


def a_step(**runtime: Any) -> Step:
    raw = {
        "id": "f",
        "triggers": [{"event": "go"}],
        "steps": {"a": {"path": "file://.", "runtime": {"type": "lambda", **runtime}}},
    }
    return compile_plan(parse_definition(raw).normalised(), 1).steps[0]


HANDLER, PROGRAM = a_step(handler="app.handler"), a_step(command=["python3", "main.py"])
FOREIGN = a_step(arn="arn:aws:lambda:eu-west-1:123456789012:function:theirs")
HTTP = a_step(type="http", url="https://example.com/")


def record(payload: Any, error: str | None = None) -> Json:
    context: Json = {"statusCode": 200, "executedVersion": "$LATEST"}
    condition = "Success" if error is None else "RetriesExhausted"
    if error is not None:
        context["functionError"] = error
    request = {"requestId": "r", "condition": condition, "approximateInvokeCount": 1}
    return {"requestContext": request, "responseContext": context, "responsePayload": payload}


def failed(kind: str, message: str, *, final: bool = False, **more: Any) -> Outcome:
    delay = more.pop("retry_after_ms", None)
    return Outcome(None, Error(kind, message, **more), retryable=not final, retry_after_ms=delay)


# --- handlers: the outcome is the returned value ---------------------------------------------------------------------

RETURNED: dict[str, tuple[Any, Outcome]] = {
    "an object": ({"ok": True}, Outcome(b'{"ok":true}')),
    "nothing": (None, Outcome(b"null")),
    "a text": ("done", Outcome(b'"done"')),
    "a list": ([1, 2.5, None], Outcome(b"[1,2.5,null]")),
    "what looks like a report": (
        {"stepwell": 1, "exit": 1, "stdout": ""},
        Outcome(b'{"stepwell":1,"exit":1,"stdout":""}'),
    ),
    "a final status": (
        {"status": 404, "message": "no such user"},
        failed(
            "status",
            "the output has the status 404: no such user",
            final=True,
            status=404,
            output=b'{"status":404,"message":"no such user"}',
        ),
    ),
    "a status that is worth a retry": (
        {"statusCode": 429, "retry_after": 30},
        failed(
            "status",
            "the output has the status 429",
            status=429,
            output=b'{"statusCode":429,"retry_after":30}',
            retry_after_ms=30_000,
        ),
    ),
    "a number of 64 bits": ({"n": 2**64 - 1}, Outcome(b'{"n":18446744073709551615}')),
}


@pytest.mark.parametrize("step", [HANDLER, FOREIGN], ids=["ours", "theirs"])
@pytest.mark.parametrize("case", RETURNED)
def test_what_a_handler_returns_is_its_output(step: Step, case: str) -> None:
    returned, expected = RETURNED[case]
    assert outcome_of_destination(record(returned), step, NOW) == expected


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b'{"n": 123456789012345678901234567890}', "invalid_output"),
        (b'{"n": 12345678901234567890123, "x": NaN}', "invalid_output"),
        (b'{"text": "\\ud800", "n": 1234567890123456789}', "invalid_output"),
    ],
)
def test_what_a_handler_returns_and_cannot_be_kept_is_a_final_failure(text: bytes, kind: str) -> None:
    message = b'{"responsePayload": %b}' % text
    outcome = outcome_of_destination(read_body(message), HANDLER, NOW)
    assert outcome.error is not None
    assert (outcome.error.kind, outcome.retryable) == (kind, False)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("NaN", "not JSON"),
        ('{"x": -Infinity, "requestPayload": 1}', "not JSON"),
        ("[" * 100_000 + "]" * 100_000, "nested more than 128 levels deep"),
        ('{"a": ' * 2000 + "1" + "}" * 2000, "nested more than 128 levels deep"),
        ('{"a": ' * 300 + "1" + "}" * 300, "nested more than 128 levels deep"),
        ("[" * 129 + "]" * 129, "nested more than 128 levels deep"),
        ("", "not JSON"),
        ('{"text": "half of an emoji: \\ud83d"}', "half a character"),
        ('"\\udc00"', "half a character"),
        ('{"\\ud83d": 1, "n": 1234567890123456789}', "half a character"),
        ("1e999", "too large for a double"),
    ],
)
def test_an_answer_that_no_parser_takes_costs_its_attempt_and_no_message(answer: str, reason: str) -> None:
    text = 'a "responsePayload": 1, of a user'
    rest = json.dumps({"requestPayload": {"event": text}, "responseContext": {"statusCode": 200}})
    body = read_body(f'{rest[:-1]}, "responsePayload": {answer}}}'.encode())
    outcome = outcome_of_destination(body, HANDLER, NOW)
    assert body["requestPayload"] == {"event": text}
    assert outcome.error is not None
    assert (outcome.error.kind, outcome.retryable) == ("invalid_output", False)
    assert reason in outcome.error.message


@pytest.mark.parametrize("body", [b"", b"go", b"[1", b'{"requestPayload": NaN, "responsePayload": 1}', b'{"a": 1'])
def test_a_message_that_is_broken_elsewhere_cannot_be_read(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        read_body(body)


def test_an_output_of_more_than_256_kib_is_a_final_failure_that_says_what_to_do() -> None:
    outcome = outcome_of_destination(record({"text": "x" * 300_000}), HANDLER, NOW)
    assert outcome.error is not None
    assert (outcome.error.kind, outcome.retryable) == ("output_too_large", False)
    assert "output a reference" in outcome.error.message


def test_half_a_character_beside_the_answer_does_not_matter() -> None:
    text = json.dumps({**record({"ok": True}), "more": "\ud83d"})
    assert outcome_of_destination(read_body(text.encode()), HANDLER, NOW) == Outcome(b'{"ok":true}')


def test_half_a_character_of_an_exceptions_message_is_replaced() -> None:
    thrown = record({"errorType": "Error", "errorMessage": "half: \ud83d"}, "Unhandled")
    outcome = outcome_of_destination(read_body(json.dumps(thrown).encode()), HANDLER, NOW)
    assert outcome == failed("exception", "Error: half: ?")


@pytest.mark.parametrize("condition", ["RetriesExhausted", "ZeroReservedConcurrency", "SomethingNew", None])
@pytest.mark.parametrize("step", [HANDLER, PROGRAM, FOREIGN, HTTP], ids=["handler", "program", "foreign", "http"])
def test_what_lambda_does_not_call_a_success_is_none(step: Step, condition: str | None) -> None:
    fields = record(None)
    fields["requestContext"]["condition"] = condition
    del fields["responseContext"], fields["responsePayload"]
    outcome = outcome_of_destination(fields, step, NOW)
    assert outcome.error is not None
    assert (outcome.error.kind, outcome.retryable) == ("crash", True)


# --- failed functions, as Lambda reports them ------------------------------------------------------------------------

ERRORS: dict[str, tuple[Any, Outcome]] = {
    "an exception": (
        {"errorType": "ValueError", "errorMessage": "no phone number", "stackTrace": ["..."]},
        failed("exception", "ValueError: no phone number"),
    ),
    "an exception without a type": ({"errorMessage": "no phone number"}, failed("exception", "no phone number")),
    "an error that says nothing": ({}, failed("exception", "the function failed without a message")),
    "an error that is no object": ("boom", failed("exception", "the function failed without a message")),
    "a timeout": (
        {"errorType": "Sandbox.Timedout", "errorMessage": "RequestId: r Error: Task timed out after 900.00 seconds"},
        failed("timeout", "the attempt did not end within the timeout of 900 s"),
    ),
    "a timeout as it was told before": (
        {"errorMessage": "2026-06-01T10:00:30.000Z r Task timed out after 900.00 seconds"},
        failed("timeout", "the attempt did not end within the timeout of 900 s"),
    ),
    "an exit": (
        {
            "errorType": "Runtime.ExitError",
            "errorMessage": "RequestId: r Error: Runtime exited with error: exit status 3",
        },
        failed("crash", "the handler's process ended with exit code 3 before the handler returned"),
    ),
    "out of memory": (
        {
            "errorType": "Runtime.OutOfMemory",
            "errorMessage": "RequestId: r Error: Runtime exited with error: signal: killed",
        },
        failed("crash", "killed by SIGKILL: did it need more memory than the step's `memory`?"),
    ),
    "an answer of more than 6 MB": (
        {
            "errorType": "Function.ResponseSizeTooLarge",
            "errorMessage": "Response payload size (7340039 bytes) exceeded maximum allowed payload size (6291556).",
        },
        failed(
            "output_too_large",
            "the output has 7,340,039 bytes, more than the maximum of 262,144 (256 KiB); "
            "store it elsewhere and output a reference, such as a URL or a key",
            final=True,
        ),
    ),
    "no such handler": (
        {"errorType": "Runtime.HandlerNotFound", "errorMessage": "app.handler is undefined or not exported"},
        failed("start", "app.handler is undefined or not exported", final=True),
    ),
    "values that SSM did not answer in time": (
        {"errorType": "Stepwell.Unavailable", "errorMessage": "the secrets cannot be read from SSM"},
        failed("values_unavailable", "the secrets cannot be read from SSM"),
    ),
    "a module that cannot be imported": (
        {"errorType": "Runtime.ImportModuleError", "errorMessage": "Unable to import module 'app'"},
        failed("exception", "Runtime.ImportModuleError: Unable to import module 'app'"),
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_lambda_says_of_a_function_that_failed(case: str) -> None:
    payload, expected = ERRORS[case]
    for step in (HANDLER, PROGRAM):
        assert outcome_of_destination(record(payload, "Unhandled"), step, NOW) == expected


# --- the adapter's reports -------------------------------------------------------------------------------------------


def report(stdout: bytes = b"", **fields: Any) -> Json:
    """The report that the adapter sends of a successful program."""
    values: Json = {"stdout": base64.b64encode(stdout).decode(), "size": len(stdout), "long": False, "tail": ""}
    return {"stepwell": 1, "exit": 0, "signal": None, **values, "timed_out": False, "start_error": None, **fields}


REPORTS: dict[str, tuple[Json, Outcome]] = {
    "JSON": (report(b'{"ok": true}\n'), Outcome(b'{"ok":true}')),
    "lines, then JSON": (report(b"connecting\n[1, 2]\n"), Outcome(b"[1,2]")),
    "text": (report(b"done\n"), Outcome(b'{"body":"done"}')),
    "nothing": (report(), Outcome(b'{"body":""}')),
    "bytes that are no text": (report(b"\xff\x00"), Outcome('{"body":"\ufffd\\u0000"}'.encode())),
    "values that SSM did not answer in time": (
        report(start_error={"message": "throttled", "retryable": True, "kind": "values_unavailable"}),
        failed("values_unavailable", "throttled"),
    ),
    "an exit code": (report(exit=3, tail="no disk"), failed("exit", "exit code 3: no disk")),
    "an exit code and a reason": (
        report(b'{"error": "no disk"}', exit=3),
        failed("exit", "exit code 3: no disk", output=b'{"error":"no disk"}'),
    ),
    "an exit code and a final status": (
        report(b'{"status": 400}', exit=1),
        failed("exit", "exit code 1", final=True, status=400, output=b'{"status":400}'),
    ),
    "a final status and exit code 0": (
        report(b'{"status": 410}'),
        failed("status", "the output has the status 410", final=True, status=410, output=b'{"status":410}'),
    ),
    "a signal": (report(exit=None, signal=9, tail=""), failed("crash", "killed by SIGKILL")),
    "a timeout": (
        report(b'{"ok": true}', exit=None, signal=9, timed_out=True),
        failed("timeout", "the attempt did not end within the timeout of 900 s"),
    ),
    "a program that is not there": (
        report(exit=None, start_error={"message": "there is no bin/run", "retryable": False}),
        failed("start", "there is no bin/run", final=True),
    ),
    "a program that could not be started just now": (
        report(exit=None, start_error={"message": "no memory", "retryable": True}),
        failed("start", "no memory"),
    ),
    "long, with a last line that is JSON": (report(b'{"ok": 1}\n', long=True, size=9_000_000), Outcome(b'{"ok":1}')),
    "colours on stderr": (report(exit=1, tail="\x1b[31mred\x1b[0m\n"), failed("exit", "exit code 1: red")),
}


@pytest.mark.parametrize("case", REPORTS)
def test_a_programs_report_is_read_by_the_contracts_rules(case: str) -> None:
    fields, expected = REPORTS[case]
    assert outcome_of_destination(record(fields), PROGRAM, NOW) == expected
    assert outcome_of_report(fields, NOW, TIMEOUT_MS) == expected  # the report of a container, from the bucket


@pytest.mark.parametrize("stdout", [b"", b"the last line is no JSON\n"])
def test_a_long_output_without_a_last_line_of_json_is_too_large(stdout: bytes) -> None:
    outcome = outcome_of_report(report(stdout, long=True, size=9_000_000), NOW, TIMEOUT_MS)
    assert outcome.error is not None
    assert (outcome.error.kind, outcome.retryable) == ("output_too_large", False)
    assert "9,000,000 bytes" in outcome.error.message


def test_a_program_that_failed_after_a_long_output_has_failed_because_of_its_exit() -> None:
    outcome = outcome_of_report(report(long=True, size=9_000_000, exit=3, tail="no disk"), NOW, TIMEOUT_MS)
    assert outcome == failed("exit", "exit code 3: no disk")


# --- the reports of step_http ----------------------------------------------------------------------------------------


def answered(status: int, body: bytes = b"", **fields: Any) -> Json:
    values: Json = {"body": base64.b64encode(body).decode(), "size": len(body), "long": False}
    return {"stepwell": 1, "http": status, **values, "retry_after": None, "error": None, **fields}


ANSWERS: dict[str, tuple[Json, Outcome]] = {
    "JSON": (answered(200, b'{"id": 7}'), Outcome(b'{"id":7}')),
    "text": (answered(204), Outcome(b'{"body":""}')),
    "a status that is final": (
        answered(404, b'{"message": "no such user"}'),
        failed(
            "http",
            "the response has status 404: no such user",
            final=True,
            status=404,
            output=b'{"message":"no such user"}',
        ),
    ),
    "a status with a time": (
        answered(503, b"busy", retry_after="120"),
        failed("http", "the response has status 503: busy", status=503, retry_after_ms=120_000),
    ),
    "no connection": (
        answered(0, error={"kind": "http", "message": "no connection to example.com"}),
        failed("http", "no connection to example.com"),
    ),
    "an address that will never do": (
        answered(0, error={"kind": "http", "message": "is not public", "retryable": False}),
        failed("http", "is not public", final=True),
    ),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_an_answer_over_http_is_read_by_the_contracts_rules(case: str) -> None:
    fields, expected = ANSWERS[case]
    assert outcome_of_destination(record(fields), HTTP, NOW) == expected


# --- hostile reports -------------------------------------------------------------------------------------------------

HOSTILE: dict[str, Any] = {
    "nothing": None,
    "a text": "exit 0",
    "a list": [1],
    "no mark": {"exit": 0, "stdout": ""},
    "a mark of another version": report() | {"stepwell": 2},
    "no exit": {"stepwell": 1},
    "an exit that is a text": report(exit="zero"),
    "an exit that is a list": report(exit=[0]),
    "an exit without end": report(exit=float("inf")),
    "an exit that is no number": report(exit=float("nan")),
    "an exit of many digits": report(exit=10**5000),
    "a signal that is a name": report(signal="SIGKILL"),
    "a signal that is an object": report(signal={"a": 1}),
    "stdout that is no base64": report(stdout=b"") | {"stdout": "a"},
    "stdout that is a number": report() | {"stdout": 17},
    "stdout that is null": report() | {"stdout": None},
    "stdout that is not ASCII": report() | {"stdout": "ü"},
    "long without a size": {"stepwell": 1, "exit": 0, "stdout": "", "long": True},
    "a size that is a text": report(long=True, size="big"),
    "a start error that is a text": report(start_error="boom"),
    "a start error without a message": report(start_error={"retryable": True}),
    "an error of http that is a text": answered(0, error="boom"),
    "an error of http without a kind": answered(0, error={"message": "x"}),
    "a status that is null": answered(200) | {"http": None},
    "a status that is a text": answered(200) | {"http": "teapot"},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_report_that_makes_no_sense_is_a_crash(case: str) -> None:
    outcome = outcome_of_report(HOSTILE[case], NOW, TIMEOUT_MS)
    assert outcome.error is not None
    assert (outcome.error.kind, outcome.output) == ("crash", None)
    assert len(outcome.error.message) <= 2000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda strategy: st.lists(strategy) | st.dictionaries(st.text(), strategy),
    max_leaves=5,
)
fields = st.sampled_from([*report(), *answered(200)])


@given(st.dictionaries(fields, json_values), st.booleans())
def test_any_report_becomes_an_outcome_that_can_be_kept(some: Json, is_http: bool) -> None:
    fields = {**(answered(200, b"{}") if is_http else report(b"{}")), **some}
    for outcome in (outcome_of_report(fields, NOW, TIMEOUT_MS), outcome_of_destination(record(fields), PROGRAM, NOW)):
        assert (outcome.output is None) != (outcome.error is None)
        if outcome.output is not None:
            json.loads(outcome.output)
        else:
            assert outcome.error is not None
            outcome.error.message.encode()


@given(json_values)
def test_anything_that_a_handler_returns_becomes_an_outcome_that_can_be_kept(returned: Any) -> None:
    outcome = outcome_of_destination(read_body(json.dumps(record(returned)).encode()), HANDLER, NOW)
    assert (outcome.output is None) != (outcome.error is None)


@given(json_values)
def test_anything_that_lambda_says_of_a_failure_becomes_one(payload: Any) -> None:
    outcome = outcome_of_destination(record(payload, "Unhandled"), HANDLER, NOW)
    assert outcome.error is not None
    outcome.error.message.encode()
