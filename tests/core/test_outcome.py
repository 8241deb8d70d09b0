"""What a step says, and what becomes of it."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.core.messages import Error, Outcome
from stepwell.core.outcome import (
    MAX_OUTPUT_BYTES,
    failure,
    from_exit,
    from_http,
    from_said,
    read_json,
    read_stdout,
    retry_after_ms,
    timed_out,
    too_large,
    unsaid,
)

NOW = 1_700_000_000_000  # 2023-11-14T22:13:20Z
DAY = 86_400_000


def said(text: bytes) -> Outcome:
    return from_said(read_stdout(text), NOW)


@pytest.mark.parametrize(
    ("printed", "output"),
    [
        (b'{"a": 1}\n', b'{"a":1}'),
        (b"[1, 2]", b"[1,2]"),
        (b"3", b"3"),
        (b'"text"', b'"text"'),
        (b"null\n", b"null"),
        (b' \n {"a":\n 1}\n\n', b'{"a":1}'),  # over several lines
        (b'\xef\xbb\xbf{"a": 1}', b'{"a":1}'),  # a byte order mark
        (b'log\nmore\n{"a": 1}\n', b'{"a":1}'),
        (b'log\r\n{"a": 1}\r\n', b'{"a":1}'),
        (b"log\n[1]\n \n\n", b"[1]"),
        (b"log\n3\n", b'{"body":"log\\n3"}'),  # only objects and arrays count as a last line
        (b'log\n"text"\n', b'{"body":"log\\n\\"text\\""}'),
        (b'{"a": 1}\nlog\n', b'{"body":"{\\"a\\": 1}\\nlog"}'),
        (b"hello\n\n", b'{"body":"hello"}'),
        (b"  hello \r\n", b'{"body":"  hello "}'),
        (b"", b'{"body":""}'),
        (b"\n", b'{"body":""}'),
        (b"NaN", b'{"body":"NaN"}'),
        (b'{"a": NaN}', b'{"body":"{\\"a\\": NaN}"}'),
        (b"[INFO] started", b'{"body":"[INFO] started"}'),
        (b"\xff\xfe", '{"body":"\ufffd\ufffd"}'.encode()),
        (b"\x00\x1b[31m", b'{"body":"\\u0000\\u001b[31m"}'),
        (b"1e400 apples", b'{"body":"1e400 apples"}'),
        (b"18446744073709551615", b"18446744073709551615"),
        (b"-9223372036854775808", b"-9223372036854775808"),
        (b'{"id": "123456789012345678901234567890"}', b'{"id":"123456789012345678901234567890"}'),
        (b"[1234567890123456789012.5]", b"[1.2345678901234568e+21]"),
    ],
)
def test_what_is_printed_becomes_the_output(printed: bytes, output: bytes) -> None:
    assert said(printed) == Outcome(output=output)


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        (b"18446744073709551616", "the integer 18446744073709551616 does not fit into 64 bits"),
        (b'{"a": [-9223372036854775809]}', "does not fit into 64 bits"),
        (b'log\n{"a": 123456789012345678901234567890}', "does not fit into 64 bits"),
        (b"9" * 5000, "infinity"),
        (b"[1e400]", "infinity"),
        (b'{"a": "\\ud83d"}', "surrogate"),
        (b"[" * 300 + b"]" * 300, "nested more than 254 deep"),
        (b"log\n" + b"[" * 300 + b"]" * 300, "nested more than 254 deep"),
        (b"[" * 100_000 + b"]" * 100_000, "nested more than 254 deep"),
    ],
)
def test_json_that_would_not_stay_what_it_is_is_refused(printed: bytes, reason: str) -> None:
    outcome = said(printed)
    assert outcome.error is not None
    assert (outcome.error.kind, outcome.retryable, outcome.output) == ("invalid_output", False, None)
    assert reason in outcome.error.message


def test_an_output_may_have_256_kib_as_it_is_stored() -> None:
    text = "x" * (MAX_OUTPUT_BYTES - 8)
    assert said(orjson.dumps({"a": text})).output == orjson.dumps({"a": text})
    outcome = said(orjson.dumps({"a": text + "x"}))
    assert outcome.error is not None
    assert (outcome.error.kind, outcome.retryable) == ("output_too_large", False)
    assert "262,145 bytes" in outcome.error.message
    assert "pass a reference" in outcome.error.message
    assert said(b"[" + b"1,        " * 60_000 + b"1]").output == b"[" + b"1," * 60_000 + b"1]"


@pytest.mark.parametrize("printed", [b"x" * MAX_OUTPUT_BYTES, b"\x01" * 50_000, b"log\n" + b"x" * MAX_OUTPUT_BYTES])
def test_a_text_counts_as_it_is_stored_too(printed: bytes) -> None:
    outcome = said(printed)
    assert outcome.error is not None
    assert outcome.error.kind == "output_too_large"
    assert unsaid(read_stdout(printed), outcome) == printed


@pytest.mark.parametrize(
    ("output", "status", "retryable"),
    [
        ({"status": 400}, 400, False),
        ({"statusCode": 404}, 404, False),
        ({"status": 408}, 408, True),
        ({"status": 425}, 425, True),
        ({"status": 429}, 429, True),
        ({"status": 500}, 500, True),
        ({"status": 599}, 599, True),
        ({"status": "ok", "statusCode": 500}, 500, True),
    ],
)
def test_a_status_in_the_output_is_a_failure(output: dict[str, object], status: int, retryable: bool) -> None:
    text = orjson.dumps(output)
    error = Error("status", f"the output says status {status}", status, text)
    assert said(text) == Outcome(error=error, retryable=retryable)


@pytest.mark.parametrize(
    "output", [{"status": 399}, {"status": 600}, {"status": 500.0}, {"status": "500"}, {"status": True}, [500]]
)
def test_any_other_status_is_just_output(output: object) -> None:
    text = orjson.dumps(output)
    assert said(text) == Outcome(output=text)


def test_a_failed_output_explains_itself() -> None:
    outcome = said(b'{"status": 404, "message": "no such user"}')
    assert outcome.error is not None
    assert outcome.error.message == "the output says status 404: no such user"


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        (3, 3000),
        (0, 0),
        (1.5, 1500),
        ("3", 3000),
        ("1.5", 1500),
        ("10s", 10_000),
        ("1h30m", 5_400_000),
        ("2023-11-14T22:13:30Z", 10_000),
        ("2023-11-14T23:13:30+01:00", 10_000),
        ("Tue, 14 Nov 2023 22:13:30 GMT", 10_000),
        ("Tue, 14 Nov 2023 22:13:10 GMT", 0),  # is over
        (1e18, 366 * DAY),
        ("9" * 20, 366 * DAY),
        ("500d", 366 * DAY),
        ("9999-12-31T23:59:59Z", 366 * DAY),
        (-1, None),
        ("-1", None),
        (True, None),
        (None, None),
        ({}, None),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("2023-11-14T22:13:30", None),  # in which timezone?
        ("9" * 100, None),
    ],
)
def test_retry_after_is_read_in_every_usual_form(value: object, ms: int | None) -> None:
    assert retry_after_ms(value, NOW) == ms


def test_retry_after_in_the_output_sets_the_delay() -> None:
    assert said(b'{"status": 429, "retry_after": 7}').retry_after_ms == 7000
    assert from_exit(1, read_stdout(b'{"retry_after": "2s"}'), "", NOW).retry_after_ms == 2000
    assert said(b'{"status": 404, "retry_after": 7}').retry_after_ms is None


@pytest.mark.parametrize(
    ("code", "printed", "line", "outcome"),
    [
        (3, b"", "boom", Outcome(error=Error("exit", "exit code 3: boom"))),
        (3, b"text\n", "", Outcome(error=Error("exit", "exit code 3: text"))),
        (1, b"[1]", "", Outcome(error=Error("exit", "exit code 1"))),
        (1, b'{"a": 1}', "x", Outcome(error=Error("exit", "exit code 1: x", None, b'{"a":1}'))),
        (1, b'{"status": 422}', "", Outcome(None, Error("exit", "exit code 1", 422, b'{"status":422}'), False)),
        (1, b'{"status": 503}', "", Outcome(None, Error("exit", "exit code 1", 503, b'{"status":503}'), True)),
        (1, b'{"status": 200}', "", Outcome(None, Error("exit", "exit code 1", None, b'{"status":200}'), True)),
        (-9, b"", "", Outcome(error=Error("crash", "killed by SIGKILL"))),
        (-11, b"", "Segmentation fault", Outcome(error=Error("crash", "killed by SIGSEGV: Segmentation fault"))),
        (-200, b"", "", Outcome(error=Error("crash", "killed by signal 200"))),
        (1, b"x" * 300_000, "", Outcome(error=Error("exit", "exit code 1"))),
        (0, b'{"a": 1}', "ignored", Outcome(output=b'{"a":1}')),
    ],
)
def test_a_program_fails_by_its_exit_code(code: int, printed: bytes, line: str, outcome: Outcome) -> None:
    assert from_exit(code, read_stdout(printed), line, NOW) == outcome


@pytest.mark.parametrize(
    ("status", "body", "header", "outcome"),
    [
        (200, b'{"a": 1}', None, Outcome(output=b'{"a":1}')),
        (204, b"", None, Outcome(output=b'{"body":""}')),
        (302, b"", None, Outcome(output=b'{"body":""}')),
        (404, b"gone", None, Outcome(None, Error("http", "answered with status 404: gone", 404), False)),
        (500, b'{"a": 1}', None, Outcome(error=Error("http", "answered with status 500", 500, b'{"a":1}'))),
        (503, b"", "7", Outcome(None, Error("http", "answered with status 503", 503), True, 7000)),
        (
            429,
            b'{"retry_after": 2}',
            "7",
            Outcome(None, Error("http", "answered with status 429", 429, b'{"retry_after":2}'), True, 2000),
        ),
        (
            200,
            b'{"status": 503}',
            "7",
            Outcome(None, Error("status", "the output says status 503", 503, b'{"status":503}'), True, 7000),
        ),
    ],
)
def test_an_http_answer_is_judged_by_its_status_and_body(
    status: int, body: bytes, header: str | None, outcome: Outcome
) -> None:
    assert from_http(status, read_stdout(body), NOW, header) == outcome


@pytest.mark.parametrize(
    ("printed", "code", "log"),
    [
        (b'one\ntwo\n{"a": 1}\n', 0, b"one\ntwo\n"),
        (b'one\n{"a": 1}\n', 1, b"one\n"),  # the object is the error's output
        (b"text\n", 0, b""),
        (b"text\n", 1, b"text\n"),
        (b"one\n[1]\n", 1, b"one\n[1]\n"),
    ],
)
def test_what_is_no_output_belongs_into_the_log(printed: bytes, code: int, log: bytes) -> None:
    its = read_stdout(printed)
    assert unsaid(its, from_exit(code, its, "", NOW)) == log


def test_a_return_value_that_is_no_json_is_refused() -> None:
    outcome = from_said(read_json(b"{"), NOW)
    assert outcome.error is not None
    assert (outcome.error.kind, outcome.retryable) == ("invalid_output", False)


def test_messages_can_be_shown_and_stored_whatever_is_in_them() -> None:
    outcome = failure("exception", "\x1b[31mred\x1b[0m \ud800 \x00\n" + "x" * 5000)
    assert outcome.error is not None
    assert outcome.error.message.startswith("red ? \n")
    assert len(outcome.error.message) == 2000
    assert timed_out(1500) == Outcome(error=Error("timeout", "did not end within 1.5 s, its timeout"))
    assert from_said(too_large(10**8), NOW).retryable is False


almost_json = st.text(alphabet='[]{}":,1e\\ud8 \n', max_size=100).map(str.encode)


@given(st.binary(max_size=300) | almost_json, st.integers(-70, 99))
def test_whatever_is_printed_gives_an_outcome_that_can_be_stored(printed: bytes, code: int) -> None:
    its = read_stdout(printed)
    outcome = from_exit(code, its, "", NOW)
    stored = outcome.output if outcome.error is None else outcome.error.output
    if stored is not None:
        assert orjson.dumps(orjson.loads(stored)) == stored
    assert its.log + its.text == printed
