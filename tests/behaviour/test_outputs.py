"""Outputs: what handlers return and programs print, the limits on outputs, and the limits on events."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Iterable
from typing import Any

import pytest

from tests.behaviour.words import Json, Platform, Refused, function

MOST_OUTPUT = MOST_EVENT = 256 * 1024


def outcome(platform: Platform, event_id: str) -> Json:
    """The step `a` of the event's only run."""
    (run,) = platform.runs(event_id)
    return dict(run["steps"]["a"])


def log_of(step: Json) -> str:
    return str(step["attempts"][-1]["logs"])


def outcomes(platform: Platform, rows: Iterable[Json], pass_time: str | None = None) -> list[Json]:
    """The step `a` for each row of a table. Each row is the data of one event, so one function has a run per row."""
    events = [platform.send(data=row) for row in rows]
    if pass_time is not None:
        platform.travel(pass_time)
    return [outcome(platform, event_id) for event_id in events]


def handler_by_row(values: Iterable[str]) -> dict[str, str | bytes]:
    """A handler that returns the value of one of these Python expressions; the event contains the row."""
    rows = "".join(f"    lambda: {value},\n" for value in values)
    body = f"ROWS = [\n{rows}]\n\ndef scripted(event, context):\n    return ROWS[event['event']['data']['row']]()\n"
    return {"steps/app.py": WRITES + body}


# --- handlers ------------------------------------------------------------------------------------------------------


RETURNED = [None, True, 0, 1.5, -(2**63), 2**64 - 1, "", "text", [], [1, [2]], {}, {"a": None}]


def test_the_return_value_of_a_handler_is_the_output(platform: Platform) -> None:
    platform.deploy(function())
    steps = outcomes(platform, ({"script": {"a": [{"return": value}]}} for value in RETURNED))
    assert [(step["status"], step["output"]) for step in steps] == [("completed", value) for value in RETURNED]


RETURNS = "import os\ndef scripted(event, context):\n    return {}\n"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("object()", "not JSON"),
        ("{1, 2}", "not JSON"),
        ("float('nan')", "not JSON"),
        ("{'x': float('inf')}", "not JSON"),
        ("'\\ud800'", ""),  # half of a surrogate pair
        ("10 ** 400", "cannot be stored"),
        ("__import__('functools').reduce(lambda x, _: [x], range(5000), 0)", ""),
    ],
)
def test_a_return_value_that_is_not_json_is_a_failure(platform: Platform, value: str, expected: str) -> None:
    platform.deploy(function(), {"steps/app.py": RETURNS.format(value)})
    step = outcome(platform, platform.send())
    assert step["status"] == "failed"
    assert expected in step["error"]["message"]
    assert outcome(platform, platform.send())["status"] == "failed"  # and the platform still works


WRITES = """
import collections, dataclasses, datetime, decimal, enum
D = decimal.Decimal
P = collections.namedtuple("P", "x y")
Level = enum.IntEnum("Level", "LOW HIGH")
@dataclasses.dataclass
class Order: total: int
"""
WRITTEN: list[tuple[str, Any]] = [
    ('{"total": D("12.50"), "count": D("3"), "x": [D("1E+2"), D("-0.10")]}',
     {"total": 12.5, "count": 3, "x": [100.0, -0.1]}),
    ('D("7")', 7),
    ("b'x'", "x"),
    ("b'{\"a\": 1}'", {"a": 1}),
    ("b'\\xff'", "\ufffd"),
    ("{'a': b'caf\\xc3\\xa9'}", {"a": "café"}),
    ("{7: 'a', 2.5: 'b', None: 'c', True: 'd', b'k': 'e', Level.HIGH: 'f'}",
     {"7": "a", "2.5": "b", "null": "c", "true": "d", "k": "e", "2": "f"}),
    ("[P(1, (2, 3)), Level.HIGH, collections.OrderedDict(a=1)]", [{"x": 1, "y": [2, 3]}, 2, {"a": 1}]),
]  # fmt: skip


def test_python_values_are_serialised_as_on_lambda(platform: Platform) -> None:
    platform.deploy(function(), handler_by_row(value for value, _ in WRITTEN))
    steps = outcomes(platform, ({"row": row} for row in range(len(WRITTEN))))
    assert [(step["status"], step["output"]) for step in steps] == [("completed", output) for _, output in WRITTEN]


UNWRITABLE = [
    ("datetime.datetime(2026, 1, 1)", "Object of type datetime is not JSON serializable"),
    ("[Order(1)]", "Object of type Order is not JSON serializable"),
    ("{'a': {1, 2}}", "Object of type set is not JSON serializable"),
    ("{(1, 2): 3}", "keys must be str, int, float, bool or None, not tuple"),
    ("{D(1): 3}", "keys must be str, int, float, bool or None, not Decimal"),
    ("[b'\\xff']", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
    ("(lambda x: x.append(x) or x)([])", "Circular reference detected"),
]


def test_values_that_lambda_cannot_serialise_give_the_same_error_everywhere(platform: Platform) -> None:
    platform.deploy(function({"a": {"retries": {"attempts": 1}}}), handler_by_row(value for value, _ in UNWRITABLE))
    steps = outcomes(platform, ({"row": row} for row in range(len(UNWRITABLE))), pass_time="1h")
    items = [f"Runtime.MarshalError: Unable to marshal response: {message}" for _, message in UNWRITABLE]
    assert [step["error"]["message"] for step in steps] == items
    for step in steps:
        assert (step["status"], step["error"]["kind"], len(step["attempts"])) == ("failed", "exception", 2)


NODE: Json = {"a": {"runtime": {"type": "lambda", "handler": "index.handler"}}}


JAVASCRIPT: list[tuple[str, Any]] = [
    ("undefined", None),
    ("{ a: undefined, b: NaN, c: -Infinity, d: () => 1, e: Symbol('x'), f: -0 }", {"b": None, "c": None, "f": 0}),
    ("new Date(0)", "1970-01-01T00:00:00.000Z"),
    ("[new Map([[1, 2]]), new Set([1]), Buffer.from('a'), [undefined]]",
     [{}, {}, {"type": "Buffer", "data": [97]}, [None]]),
    ("{ toJSON: () => ({ a: 1 }) }", {"a": 1}),
    ("new (class { constructor() { this.a = 1 } get b() { return 2 } })()", {"a": 1}),
    ("[new Error('x'), new Number(1), new String('s'), /x/]", [{}, 1, "s", {}]),
    ("() => 1", None),
]  # fmt: skip


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_javascript_values_are_serialised_as_on_lambda(platform: Platform) -> None:
    rows = "".join(f"  () => ({value}),\n" for value, _ in JAVASCRIPT)
    code = f"const rows = [\n{rows}]\nexports.handler = async (event) => rows[event.event.data.row]()\n"
    platform.deploy(function(NODE), {"steps/index.js": code})
    steps = outcomes(platform, ({"row": row} for row in range(len(JAVASCRIPT))))
    assert [(step["status"], step["output"]) for step in steps] == [("completed", output) for _, output in JAVASCRIPT]


@pytest.mark.parametrize(
    "value", ["10n", "{ a: [1n] }", "(() => { const a = {}; a.a = a; return a })()", "{ toJSON() { throw 7 } }"]
)
@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_javascript_values_that_cannot_be_serialised_are_a_failure(platform: Platform, value: str) -> None:
    code = f"exports.handler = async () => ({value})\n"
    platform.deploy(function(NODE), {"steps/index.js": code})
    step = outcome(platform, platform.send())
    assert (step["status"], step["error"]["kind"]) == ("failed", "exception")
    assert step["error"]["message"].startswith("Error: Unable to stringify response body")


STATUSES: list[tuple[Any, str]] = [
    ({"status": 404}, "failed"),
    ({"statusCode": 500, "body": "x"}, "failed"),
    ({"status": 599}, "failed"),
    ({"status": 400}, "failed"),
    ({"status": 399}, "completed"),
    ({"status": 600}, "completed"),
    ({"status": 200, "statusCode": 404}, "failed"),
    ({"status": "404"}, "completed"),
    ({"status": 404.0}, "completed"),
    ({"status": True}, "completed"),
    ({"status": None}, "completed"),
    ([{"status": 404}], "completed"),
    ({"body": {"status": 404}}, "completed"),
]


def test_an_output_fails_by_a_status_from_400_to_599(platform: Platform) -> None:
    platform.deploy(function({"a": {"runtime": {"type": "lambda", "handler": "app.handler"}}}), SAYS)
    steps = outcomes(platform, ({"say": value} for value, _ in STATUSES))
    assert [step["status"] for step in steps] == [status for _, status in STATUSES]
    failed = [step["error"] for step in steps if step["status"] == "failed"]
    assert [error["output"] for error in failed] == [value for value, status in STATUSES if status == "failed"]
    assert all(isinstance(error["status"], int) for error in failed)


SAYS: dict[str, str | bytes] = {
    "steps/app.py": "def handler(event, context):\n    return event['event']['data']['say']\n"
}


# --- programs ------------------------------------------------------------------------------------------------------

PROGRAM = {"a": {"path": "file://say.py", "runtime": {"type": "lambda"}}}


def run_program(platform: Platform, expression: str, steps: Json = PROGRAM) -> Json:
    """The ended step of a program that writes these bytes (a Python expression) to stdout."""
    platform.deploy(function(steps), {"say.py": f"import sys\nsys.stdout.buffer.write({expression})\n"})
    return outcome(platform, platform.send())


PRINTED: list[tuple[bytes, Any, str]] = [
    # a JSON value
    (b'{"a": 1}\n', {"a": 1}, ""),
    (b" [1,\n 2]\n\n", [1, 2], ""),
    (b"null", None, ""),
    (b'"text"', "text", ""),
    (b"12\n", 12, ""),
    (b"\xef\xbb\xbf{}", {}, ""),
    (b"18446744073709551615", 2**64 - 1, ""),
    # a last line that is an object or an array
    (b'one\ntwo\n{"a": 1}\n', {"a": 1}, "one\ntwo\n"),
    (b'{"n": 1}\n{"n": 2}\n{"n": 3}\n', {"n": 3}, '{"n": 1}\n{"n": 2}\n'),
    (b"working\r\n[1]\r\n\r\n", [1], "working\r\n"),
    # text
    (b"hello\n", {"body": "hello"}, ""),
    (b"hello\nworld", {"body": "hello\nworld"}, ""),
    (b"total:\n12\n", {"body": "total:\n12"}, ""),  # a number is not an object
    # a number, only if it is represented exactly
    (b"0.1", 0.1, ""),
    (b"1e5", 1e5, ""),
    (b"5e91234\n", {"body": "5e91234"}, ""),
    (b"1e400", {"body": "1e400"}, ""),
    (b"00340434161094042557", {"body": "00340434161094042557"}, ""),
    (b"340434161094042557123\n", {"body": "340434161094042557123"}, ""),
    (b"18446744073709551616", {"body": "18446744073709551616"}, ""),
    (b"1.0000000000000000000001", {"body": "1.0000000000000000000001"}, ""),
    (b"-Infinity", {"body": "-Infinity"}, ""),
    (b"NaN\n", {"body": "NaN"}, ""),
    (b"[1, NaN]", {"body": "[1, NaN]"}, ""),
    (b'{"a": 1,}', {"body": '{"a": 1,}'}, ""),
    (b'{"a": 1} and more', {"body": '{"a": 1} and more'}, ""),
    (b"", {"body": ""}, ""),
    (b"\n", {"body": ""}, ""),
    (b"a\x00b\x1b[31mred\x07", {"body": "a\x00b\x1b[31mred\x07"}, ""),  # unchanged
    (b"caf\xe9 \xff\xfe", {"body": "caf\ufffd \ufffd\ufffd"}, ""),
    (b'"\xff"', {"body": '"\ufffd"'}, ""),
]


def test_stdout_of_a_program_becomes_the_output(platform: Platform) -> None:
    code = f"import json, sys\nrows = {[printed for printed, _, _ in PRINTED]}\n"
    code += "sys.stdout.buffer.write(rows[json.load(sys.stdin)['event']['data']['row']])\n"
    platform.deploy(function(PROGRAM), {"say.py": code})
    steps = outcomes(platform, ({"row": row} for row in range(len(PRINTED))))
    for step, (printed, output, logged) in zip(steps, PRINTED, strict=True):
        assert (step["status"], step["output"], log_of(step)) == ("completed", output, logged), printed


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("b'[' * 100_000 + b']' * 100_000", "128 levels deep"),
        ("b'{\"a\":' * 129 + b'1' + b'}' * 129", "128 levels deep"),
        ("b'{\"n\": 18446744073709551616}'", "18446744073709551616 at /n does not fit into 64 bits"),
        ("b'{\"n\": [0, -9223372036854775809]}'", "at /n/1 does not fit into 64 bits"),
        ("b'log\\n[1e999]'", "1e999 at /0 is too large for a double"),
        ('b\'{"n": "\\\\ud800"}\'', "at /n has half a character"),
    ],
)
def test_json_that_cannot_be_stored_exactly_is_a_final_failure(platform: Platform, printed: str, expected: str) -> None:
    retried = {"a": {**PROGRAM["a"], "retries": {"attempts": 2}}}
    step = run_program(platform, printed, retried)
    assert (step["status"], step["error"]["kind"], len(step["attempts"])) == ("failed", "invalid_output", 1)
    assert expected in step["error"]["message"]


def test_an_output_can_have_256_kib_but_not_one_byte_more(platform: Platform) -> None:
    retried = {"a": {**PROGRAM["a"], "retries": {"attempts": 2}}}
    step = run_program(platform, f"b'\"' + b'x' * {MOST_OUTPUT - 2} + b'\"'", retried)
    assert step["output"] == "x" * (MOST_OUTPUT - 2)
    step = run_program(platform, f"b'\"' + b'x' * {MOST_OUTPUT - 1} + b'\"'", retried)
    assert (step["status"], step["error"]["kind"], len(step["attempts"])) == ("failed", "output_too_large", 1)
    assert "reference" in step["error"]["message"]


def test_whitespace_between_json_values_does_not_count(platform: Platform) -> None:
    step = run_program(platform, f"b'[1,' + b' ' * {MOST_OUTPUT} + b'2]'")
    assert step["output"] == [1, 2]


def test_a_handlers_output_that_is_too_large_is_a_final_failure(platform: Platform) -> None:
    platform.deploy(function({"a": {"retries": {"attempts": 2}}}))
    step = outcome(platform, platform.send(data={"script": {"a": [{"size": MOST_OUTPUT - 2}]}}))
    assert step["status"] == "completed"
    for size in (MOST_OUTPUT - 1, 1_100_000, 5_000_000, 7_000_000):
        step = outcome(platform, platform.send(data={"script": {"a": [{"size": size}]}}))
        assert (step["status"], step["error"]["kind"], len(step["attempts"])) == ("failed", "output_too_large", 1)


def test_an_output_that_is_too_large_can_be_handled(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {"after": [{"step": "a", "on": "failure"}]}}))
    data = {"script": {"a": [{"size": MOST_OUTPUT}], "b": [{"input": True}]}}
    (run,) = platform.runs(platform.send(data=data))
    assert run["status"] == "completed"
    assert run["output"]["b"]["errors"]["a"]["kind"] == "output_too_large"


HUNDRED_MB = "100_000_000"


@pytest.mark.parametrize(
    ("printed", "kind", "output"),
    [
        (f"b'x' * {HUNDRED_MB}", "output_too_large", None),
        (f"(b'x' * 99 + b'\\n') * ({HUNDRED_MB} // 100)", "output_too_large", None),
        (f"(b'x' * 99 + b'\\n') * ({HUNDRED_MB} // 100) + b'{{\"ok\": true}}\\n'", None, {"ok": True}),
    ],
)
def test_a_program_that_prints_100_mb_does_not_use_the_servers_memory(
    platform: Platform, printed: str, kind: str | None, output: Any
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = run_program(platform, printed)
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert (step["error"] and step["error"]["kind"], step["output"]) == (kind, output)
    assert len(log_of(step)) <= 4 * 1024 * 1024 + 200
    assert grown_mib < 60


# --- limits on events, and invalid events --------------------------------------------------------------------------


def event_of(size: int, **fields: Any) -> Json:
    empty = {"name": "go", "data": {"text": ""}, **fields}
    frame = len(json.dumps(empty, separators=(",", ":")))
    return {**empty, "data": {"text": "x" * (size - frame)}}


def test_an_event_can_have_256_kib_but_not_one_byte_more(platform: Platform) -> None:
    platform.deploy(function())
    (event_id,) = platform.send_raw(json.dumps(event_of(MOST_EVENT)).encode())
    assert outcome(platform, event_id)["status"] == "completed"
    with pytest.raises(Refused) as refused:
        platform.send_raw(json.dumps(event_of(MOST_EVENT + 1)).encode())
    assert refused.value.status == 413
    assert "reference" in refused.value.errors[0]["message"]


def test_one_event_that_is_too_large_makes_the_whole_request_fail(platform: Platform) -> None:
    batch = [event_of(100), event_of(MOST_EVENT + 1), event_of(100)]
    with pytest.raises(Refused) as refused:
        platform.send_raw(json.dumps(batch).encode())
    assert (refused.value.status, [e["index"] for e in refused.value.errors]) == (413, [1])
    assert platform.events() == []


def test_a_request_can_contain_many_large_events(platform: Platform) -> None:
    platform.send_raw(json.dumps([event_of(MOST_EVENT) for _ in range(15)]).encode())
    assert len(platform.events()) == 15


def test_every_error_of_a_request_has_an_index_and_a_pointer(platform: Platform) -> None:
    batch = [
        {"name": "fine"},
        {"nmae": "go"},
        {"name": "go", "data": [], "user": 1},
        {"name": "", "ts": "now"},
        "go",
        {"name": "go", "id": "", "v": 7},
        {"name": "go", "a/b~c": 1},
    ]
    with pytest.raises(Refused) as refused:
        platform.send_raw(json.dumps(batch).encode())
    assert refused.value.status == 400
    assert [f"{e['index']}{e['pointer']}" for e in refused.value.errors] == [
        "1/name", "1/nmae", "2/data", "2/user", "3/name", "3/ts", "4", "5/id", "5/v", "6/a~1b~0c",
    ]  # fmt: skip
    assert "name" in refused.value.errors[1]["message"]  # the nearest valid field
    assert platform.events() == []


@pytest.mark.parametrize(
    "body",
    [b"", b"go", b"{", b"[]", b"1", b"null", b'"go"', b'{"name": "go", "data": {"n": NaN}}', b'{"name": "\xff"}',
     b'{"name": "go"}{"name": "go"}', b'{"name": "go", "data": {"n": 18446744073709551616}}', b"[" * 100_000,
     b'{"name": "go\\u0000"}', b'{"name": "go", "data": ' + b'{"a":' * 300 + b"1" + b"}" * 301],
)  # fmt: skip
def test_a_body_that_is_not_an_event_is_refused(platform: Platform, body: bytes) -> None:
    with pytest.raises(Refused) as refused:
        platform.send_raw(body)
    assert refused.value.status == 400
    assert refused.value.errors
    assert platform.events() == []


@pytest.mark.parametrize("name", ["stepwell/run.completed", "stepwell/scheduled.timer", "stepwell/x", "stepwell/"])
def test_reserved_event_names_are_refused(platform: Platform, name: str) -> None:
    with pytest.raises(Refused) as refused:
        platform.send(name)
    assert (refused.value.status, refused.value.errors[0]["pointer"]) == (400, "/name")


@pytest.mark.parametrize("name", ["stepwell/identify", "stepwell", "stepwellx/y", "Stepwell/x", "a b/ü.★"])
def test_other_names_are_accepted(platform: Platform, name: str) -> None:
    platform.deploy(function(on=name))
    assert outcome(platform, platform.send(name))["status"] == "completed"
