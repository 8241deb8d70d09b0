"""A program has the same outcome and the same log on Lambda, with the adapter, as on the local server."""

from __future__ import annotations

import base64
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stepwell.aws.steps.outcomes import outcome_of_report
from stepwell.core.run.messages import Outcome
from stepwell.core.run.outcome import from_exit, not_in_output
from stepwell.local.runners.program import last_line
from stepwell.local.runners.stdout import StdoutReader
from tests.adapter.lambda_service import Lambda

KB = 1024
LINES = (
    b"", b"  ", b"text", b"{}", b'{"a": 1}', b'{"status": 404, "message": "no"}', b"[]", b"[1,", b'"text"', b"12",
    b"null", b"NaN", b"\xff\xfe", b"{\x00}", b"\r", b'{"status": 503, "retry_after": 3}',
    b"\xef\xbb\xbf{}", b'"\\u00e9"',
)  # fmt: skip
LARGE = {
    "a text of 255 KiB": b"x" * 255 * KB,
    "a text of 260 KiB": b"x" * 260 * KB,
    "a text of 300 KiB": b"x" * 300 * KB,
    "a string of 256 KiB": b'"%b"' % (b"x" * (256 * KB - 2)),
    "a string of 256 KiB and a byte": b'"%b"' % (b"x" * (256 * KB - 1)),
    "a string of 275 KiB": b'"%b"' % (b"x" * 275 * KB),
    "escapes of 600 KiB": b'"%b"' % (b"\\u0041" * 100 * KB),
    "escapes of 600 KiB that are not too many": b'["%b"]' % (b"\\u00e9" * 100 * KB),
    "spaces of 900 KiB": b"[1,%b2]\n" % (b" " * 900 * KB),
    "spaces of 2 MiB": b"[1,%b2]\n" % (b" " * 2048 * KB),
    "lines of 300 KiB, then an object": b"a line\n" * 43 * KB + b'{"a": 1}\n\n',
    "lines of 2 MiB, then an object": b"a line\n" * 300 * KB + b'{"a": 1}',
    "lines of 2 MiB, then text": b"a line\n" * 300 * KB + b"text",
    "a text of 2 MiB, then an object": b"x" * 2048 * KB + b'\n{"a": 1}\n',
    "an array of 2 MiB": b"[%b1]" % (b"1," * 1024 * KB),
    "lines, then an object of 300 KiB": b'line\n{"a": "%b"}\n' % (b"x" * 300 * KB),
    "lines, then an object of 260 KiB with spaces": b'line\n{"a":%b1}\n' % (b" " * 260 * KB),
}


def locally(text: bytes, code: int) -> tuple[Outcome, bytes]:
    log = bytearray()
    reader = StdoutReader(lambda stream, piece: log.extend(piece))
    for start in range(0, len(text), 64 * KB):
        reader.feed(text[start : start + 64 * KB])
    report = reader.finish()
    outcome = from_exit(code, report, last_line(b""), 0)
    return outcome, bytes(log) + not_in_output(report, outcome)


class Through:
    """Runs a program with the adapter. It prints the file named in the input, and exits with the code in the input."""

    def __init__(self, sandbox: Lambda) -> None:
        self.sandbox, self.seen = sandbox, 0
        sandbox.start(sandbox.script('read -r code; cat "$FILE"; exit $code'), FILE=str(sandbox.folder / "text"))

    def __call__(self, text: bytes, code: int) -> tuple[Outcome, bytes]:
        (self.sandbox.folder / "text").write_bytes(text)
        report: dict[str, Any] = self.sandbox.invoke(b"%d\n" % code)
        log = self.sandbox.log()[self.seen :]
        self.seen += len(log)
        report["stdout"] = base64.b64encode(report["stdout"]).decode()
        return outcome_of_report(report, 0, 0), log


@pytest.fixture
def adapter(sandbox: Lambda) -> Through:
    return Through(sandbox)


def of_kind(outcome: Outcome) -> Outcome:
    """The outcome without the number of bytes, which may be that of the text or that of the JSON."""
    if outcome.error is None or outcome.error.kind != "output_too_large":
        return outcome
    return replace(outcome, error=replace(outcome.error, message=""))


def words(log: bytes) -> bytes:
    """The log without blank lines at the end, which may be dropped."""
    return b" ".join(log.split())


def assert_equal(adapter: Through, text: bytes, code: int) -> None:
    (outcome, log), (local_outcome, local_log) = adapter(text, code), locally(text, code)
    assert of_kind(outcome) == of_kind(local_outcome), text[-80:]
    assert words(log) == words(local_log), text[-80:]


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("name", LARGE)
def test_outputs_of_any_size(adapter: Through, name: str, code: int) -> None:
    assert_equal(adapter, LARGE[name], code)


def test_outputs_of_any_kind(adapter: Through) -> None:
    chance = random.Random(3)
    for _ in range(400):
        text = b"\n".join(chance.choices(LINES, k=chance.randint(0, 4)))
        assert_equal(adapter, text, chance.choice((0, 0, 1)))


def test_the_output_of_a_whole_file(adapter: Through) -> None:
    assert_equal(adapter, Path(__file__).read_bytes(), 0)
