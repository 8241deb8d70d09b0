"""Tests how the result of an attempt becomes an outcome."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.core.run.messages import Error, Outcome
from stepwell.core.run.outcome import (
    MAX_OUTPUT_BYTES,
    failure,
    from_exit,
    from_http,
    from_output,
    not_in_output,
    read_json,
    read_stdout,
    retry_after_ms,
    timed_out,
    too_large,
)

NOW = 1_700_000_000_000  # 2023-11-14T22:13:20Z
DAY = 86_400_000
TO = ", a redirect to https://x.org/login; redirects are not followed, so correct the step's url"


def outcome_of(text: bytes) -> Outcome:
    return from_output(read_stdout(text), NOW)


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
def test_printed_text_becomes_the_output(printed: bytes, output: bytes) -> None:
    assert outcome_of(printed) == Outcome(output=output)


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        (b'{"n": 18446744073709551616}', "the integer 18446744073709551616 at /n does not fit into 64 bits"),
        (b'{"a": [-9223372036854775809]}', "at /a/0 does not fit into 64 bits; write it as a text in quotes"),
        (b'{"a/b": {"~": 340434161094042557123}}', "at /a~1b/~0 does not fit"),
        (b'{"n": ' + b"9" * 5000 + b"}", "9... at /n does not fit into 64 bits"),
        (b'log\n{"a": 123456789012345678901234567890}', "does not fit into 64 bits"),
        (b"[0, 1e400]", "the number 1e400 at /1 is too large for a double; write it as a text in quotes"),
        (b'{"a": {"b": -1E999}}', "the number -1E999 at /a/b is too large for a double"),
        (b'{"a": "\\ud83d"}', "the text at /a has half a character (a lone surrogate)"),
        (b'{"a": {"\\udc00": 1}}', "at /a/\udc00 has half".replace("\udc00", "?")),
        (b'"\\ud83d"', "the text has half a character"),
        (b"[" * 129 + b"]" * 129, "nested more than 128 levels deep"),
        (b'{"a":' * 129 + b"1" + b"}" * 129, "nested more than 128 levels deep"),
        (b"log\n" + b"[" * 300 + b"]" * 300, "nested more than 128 levels deep"),
        (b"[" * 1_500 + b"]" * 1_500, "nested more than 128 levels deep"),
        (b"[" * 100_000 + b"]" * 100_000, "nested more than 128 levels deep"),
    ],
)
def test_json_that_cannot_be_stored_exactly_is_refused(printed: bytes, reason: str) -> None:
    outcome = outcome_of(printed)
    assert outcome.error is not None
    assert (outcome.error.kind, outcome.retryable, outcome.output) == ("invalid_output", False, None)
    assert reason in outcome.error.message


@pytest.mark.parametrize(
    ("printed", "number"),
    [
        (b"12", 12),
        (b" 12 \r\n", 12),  # surrounding white space is ignored
        (b"\xef\xbb\xbf12", 12),  # a byte order mark is ignored
        (b"-0", 0),  # an integer, and there is one zero
        (b"18446744073709551615", 2**64 - 1),  # the greatest of 64 bits
        (b"-9223372036854775808", -(2**63)),  # the least
        (b"0.1", 0.1),  # the double nearest to it is written 0.1
        (b"1.50", 1.5),  # the same value
        (b"-0.0", -0.0),
        (b"1e5", 1e5),  # valid JSON, and exact as a double
        (b"1E+5", 1e5),
        (b"5e91", 5e91),  # it could be the hash of a commit, but is exact
        (b"1e23", 1e23),  # Python writes this double as 1e+23
        (b"0.30000000000000004", 0.30000000000000004),  # 17 digits, as programs print doubles
        (b"123456789012345680000.0", 123456789012345680000.0),
        (b"1.7976931348623157e308", 1.7976931348623157e308),  # the greatest double
        (b"5e-324", 5e-324),  # the least
        (b"0e99", 0.0),
        (b"1." + b"0" * 500, 1.0),
    ],
)
def test_a_bare_number_with_an_exact_representation_is_a_number(printed: bytes, number: float) -> None:
    output = outcome_of(printed).output
    assert output is not None
    assert repr(orjson.loads(output)) == repr(number)


@pytest.mark.parametrize(
    "printed",
    [
        # JSON numbers without an exact representation
        b"18446744073709551616",  # the greatest 64-bit integer plus one
        b"-9223372036854775809",
        b"340434161094042557123",  # 21 digits: the number of a parcel
        b"100000000000000000000",  # exact as a double, but an integer must keep every digit
        b"9" * 5000,
        b"5e91234",  # the hash of a commit; infinity to a double
        b"1e400",
        b"-1e400",
        b"1e-400",  # zero to a double
        b"1e" + b"9" * 400,
        b"0e" + b"9" * 400,
        b"1.0000000000000000000001",  # 1.0 to a double
        b"3.14159265358979323846",
        b"9007199254740993.0",  # odd, and beyond 2^53
        b"4.9e-324",  # the least double is written 5e-324
        b"0." + b"1" * 900,
        # not JSON numbers
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"00340434161094042557",
        b"01",
        b"+1",
        b".5",
        b"1.",
        b"1_000",
        b"1,000",
        b"0x10",
        b"1e",
        b"--1",
        b"-",
        b"12 13",
        b"2026-11-29",
        "\u0663".encode(),  # a digit, in Arabic
    ],
)
def test_a_text_that_only_looks_like_a_number_is_text(printed: bytes) -> None:
    for text in (printed, printed + b"\n", b"  " + printed + b"\r\n"):
        assert outcome_of(text) == Outcome(output=orjson.dumps({"body": text.rstrip(b"\r\n").decode()}))


@pytest.mark.parametrize("text", [b"18446744073709551616", b"1" + b"0" * 400])
def test_a_number_returned_by_a_handler_is_never_converted_to_text(text: bytes) -> None:
    outcome = from_output(read_json(text), NOW)
    assert outcome.error is not None
    assert (outcome.error.kind, outcome.retryable) == ("invalid_output", False)
    assert "does not fit into 64 bits" in outcome.error.message


@pytest.mark.parametrize("text", [b"NaN", b"-Infinity", b'{"a": NaN}', b"[1, Infinity]"])
def test_nan_from_a_handler_is_not_json(text: bytes) -> None:
    outcome = from_output(read_json(text), NOW)
    assert outcome.error is not None
    assert (outcome.error.kind, outcome.retryable) == ("invalid_output", False)
    assert "not JSON" in outcome.error.message


def test_the_last_of_two_members_with_the_same_name_counts() -> None:
    assert outcome_of(b'{"n": 1, "n": 18446744073709551616}').output is None
    assert outcome_of(b'{"a": 1, "b": 2, "a": 3}') == Outcome(output=b'{"a":3,"b":2}')
    assert outcome_of(b'log\n{"status": 500, "status": 200}') == Outcome(output=b'{"status":200}')


def test_an_output_may_be_nested_128_levels_deep() -> None:
    for text in (b"[" * 128 + b"]" * 128, b'{"a":' * 128 + b"1" + b"}" * 128):
        assert outcome_of(text) == Outcome(output=text)
    assert outcome_of(b"log\n" + b"[" * 128 + b"]" * 128) == Outcome(output=b"[" * 128 + b"]" * 128)
    wide = b"[" + b"[1]," * 1000 + b'"[[[["]'  # brackets side by side are not depth
    assert outcome_of(wide) == Outcome(output=wide)


def test_the_stored_output_may_have_256_kib() -> None:
    text = "x" * (MAX_OUTPUT_BYTES - 8)
    assert outcome_of(orjson.dumps({"a": text})).output == orjson.dumps({"a": text})
    outcome = outcome_of(orjson.dumps({"a": text + "x"}))
    assert outcome.error is not None
    assert (outcome.error.kind, outcome.retryable) == ("output_too_large", False)
    assert "262,145 bytes" in outcome.error.message
    assert "output a reference" in outcome.error.message
    assert outcome_of(b"[" + b"1,        " * 60_000 + b"1]").output == b"[" + b"1," * 60_000 + b"1]"


@pytest.mark.parametrize("printed", [b"x" * MAX_OUTPUT_BYTES, b"\x01" * 50_000, b"log\n" + b"x" * MAX_OUTPUT_BYTES])
def test_the_stored_form_of_a_text_counts_for_the_limit(printed: bytes) -> None:
    outcome = outcome_of(printed)
    assert outcome.error is not None
    assert outcome.error.kind == "output_too_large"
    assert not_in_output(read_stdout(printed), outcome) == printed


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
    error = Error("status", f"the output has the status {status}", status, text)
    assert outcome_of(text) == Outcome(error=error, retryable=retryable)


@pytest.mark.parametrize(
    "output", [{"status": 399}, {"status": 600}, {"status": 500.0}, {"status": "500"}, {"status": True}, [500]]
)
def test_any_other_status_is_just_output(output: object) -> None:
    text = orjson.dumps(output)
    assert outcome_of(text) == Outcome(output=text)


def test_the_message_in_a_failed_output_is_in_the_error() -> None:
    outcome = outcome_of(b'{"status": 404, "message": "no such user"}')
    assert outcome.error is not None
    assert outcome.error.message == "the output has the status 404: no such user"


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
        ("Tue, 14 Nov 2023 22:13:10 GMT", 0),  # in the past
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
        ("2023-11-14T22:13:30", None),  # without a time zone
        ("9" * 100, None),
    ],
)
def test_retry_after_is_accepted_in_all_usual_forms(value: object, ms: int | None) -> None:
    assert retry_after_ms(value, NOW) == ms


def test_retry_after_in_the_output_sets_the_delay() -> None:
    assert outcome_of(b'{"status": 429, "retry_after": 7}').retry_after_ms == 7000
    assert from_exit(1, read_stdout(b'{"retry_after": "2s"}'), "", NOW).retry_after_ms == 2000
    assert outcome_of(b'{"status": 404, "retry_after": 7}').retry_after_ms is None


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
def test_a_nonzero_exit_code_is_a_failure(code: int, printed: bytes, line: str, outcome: Outcome) -> None:
    assert from_exit(code, read_stdout(printed), line, NOW) == outcome


@pytest.mark.parametrize(
    ("status", "body", "header", "outcome"),
    [
        (200, b'{"a": 1}', None, Outcome(output=b'{"a":1}')),
        (204, b"", None, Outcome(output=b'{"body":""}')),
        (299, b"1", None, Outcome(output=b"1")),
        (
            200,
            b'{"status": 302}',
            None,
            Outcome(output=b'{"status":302}'),
        ),  # of the body, not of the response
        (
            302,
            b"",
            "7",
            Outcome(None, Error("http", f"the response has status 302{TO}", 302), False),
        ),  # never retried
        (
            399,
            b'{"a": 1, "retry_after": 2}',
            None,
            Outcome(None, Error("http", f"the response has status 399{TO}", 399, b'{"a":1,"retry_after":2}'), False),
        ),
        (404, b"gone", None, Outcome(None, Error("http", "the response has status 404: gone", 404), False)),
        (500, b'{"a": 1}', None, Outcome(error=Error("http", "the response has status 500", 500, b'{"a":1}'))),
        (503, b"", "7", Outcome(None, Error("http", "the response has status 503", 503), True, 7000)),
        (
            429,
            b'{"retry_after": 2}',
            "7",
            Outcome(None, Error("http", "the response has status 429", 429, b'{"retry_after":2}'), True, 2000),
        ),
        (
            200,
            b'{"status": 503}',
            "7",
            Outcome(None, Error("status", "the output has the status 503", 503, b'{"status":503}'), True, 7000),
        ),
    ],
)
def test_status_and_body_of_an_http_response_decide_the_outcome(
    status: int, body: bytes, header: str | None, outcome: Outcome
) -> None:
    report = read_stdout(body)
    assert from_http(status, report, NOW, retry_after=header, location="https://x.org/login") == outcome


@pytest.mark.parametrize("location", [None, ""])
@pytest.mark.parametrize("status", [300, 304, 399])
def test_a_redirect_without_a_location_is_a_final_failure_too(status: int, location: str | None) -> None:
    message = f"the response has status {status}, which is not a success: moved"
    outcome = from_http(status, read_stdout(b"moved\n"), NOW, location=location)
    assert outcome == Outcome(None, Error("http", message, status), False)


def test_the_location_of_a_redirect_is_shown_safely() -> None:
    outcome = from_http(301, read_stdout(b""), NOW, location="\x1b[31m" + "x" * 9000)
    assert outcome.error is not None
    assert "\x1b" not in outcome.error.message
    assert len(outcome.error.message) == 2000


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
def test_printed_text_that_is_not_output_belongs_to_the_log(printed: bytes, code: int, log: bytes) -> None:
    report = read_stdout(printed)
    assert not_in_output(report, from_exit(code, report, "", NOW)) == log


@pytest.mark.parametrize("last", [b'{"a": "%b"}' % (b"x" * MAX_OUTPUT_BYTES), b'{"a": 1e999}'])
def test_text_printed_before_an_invalid_output_is_in_the_log(last: bytes) -> None:
    report = read_stdout(b"one\ntwo\n" + last)
    outcome = from_exit(0, report, "", NOW)
    assert outcome.error is not None
    assert outcome.error.kind in ("output_too_large", "invalid_output")
    assert not_in_output(report, outcome) == b"one\ntwo\n" + last


def test_a_return_value_that_is_not_json_is_refused() -> None:
    outcome = from_output(read_json(b"{"), NOW)
    assert outcome.error is not None
    assert (outcome.error.kind, outcome.retryable) == ("invalid_output", False)


def test_messages_with_any_content_can_be_shown_and_stored() -> None:
    outcome = failure("exception", "\x1b[31mred\x1b[0m \ud800 \x00\n" + "x" * 5000)
    assert outcome.error is not None
    assert outcome.error.message.startswith("red ? \n")
    assert len(outcome.error.message) == 2000
    assert timed_out(1500) == Outcome(error=Error("timeout", "the attempt did not end within the timeout of 1.5 s"))
    assert from_output(too_large(10**8), NOW).retryable is False


almost_json = st.text(alphabet='[]{}":,1e\\ud8 \n', max_size=100).map(str.encode)


@given(st.binary(max_size=300) | almost_json, st.integers(-70, 99))
def test_any_printed_bytes_give_an_outcome_that_can_be_stored(printed: bytes, code: int) -> None:
    report = read_stdout(printed)
    outcome = from_exit(code, report, "", NOW)
    stored = outcome.output if outcome.error is None else outcome.error.output
    if stored is not None:
        assert orjson.dumps(orjson.loads(stored)) == stored
    assert report.log + report.text == printed


@pytest.mark.parametrize("member", ["true", "1", "1.5"])
def test_a_fault_is_found_next_to_scalar_members_of_objects(member: str) -> None:
    report = read_json(b'[[-9223372036854775809], {"a": %b}]' % member.encode())
    assert report.problem is not None
    assert "the integer -9223372036854775809 at /0/0 does not fit" in report.problem.message


@pytest.mark.parametrize("blanks", ["", " " * 10_000], ids=["small", "large"])
@given(
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**70), 2**70)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
        max_leaves=20,
    )
)
def test_a_large_output_gives_the_same_result_as_a_small_one(blanks: str, value: object) -> None:
    """Large texts are parsed in another way than small ones."""
    text = json.dumps([value])
    report, large = read_json(text.encode()), read_json((blanks + text).encode())
    assert (large.output, large.problem) == (report.output, report.problem)
    assert (report.problem is None) == all(-(2**63) <= integer < 2**64 for integer in _integers(value))


def _integers(value: object) -> list[int]:
    if isinstance(value, bool):
        return []
    if isinstance(value, int):
        return [value]
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [integer for one in inner for integer in _integers(one)]


@pytest.mark.parametrize("blanks", [b"", b" " * 10_000], ids=["small", "large"])
@pytest.mark.parametrize(("levels", "is_kept"), [(128, True), (129, False), (300, False)])
def test_the_depth_of_large_outputs_is_counted_too(blanks: bytes, levels: int, is_kept: bool) -> None:
    report = read_json(blanks + b"[" * levels + b"]" * levels)
    assert (report.problem is None) == is_kept
