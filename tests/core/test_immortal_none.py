"""Tests that nulls returned by expressions do not use up the reference count of `None`."""

from __future__ import annotations

import subprocess
import sys

from stepwell.core.cel.immortal_none import IMMORTAL

A_MILLION_NULLS = """
import sys
from stepwell.core.cel.expressions import Bindings, Scope, compile_expression, compile_value
event = {"name": "e", "data": {"one": None, "many": [None] * 10_000}, "user": {}, "id": "i", "ts": 1, "v": None}
many, nothing = compile_value("data.many", Scope.TRIGGER), compile_value("data.one", Scope.TRIGGER)
condition = compile_expression("data.one", Scope.TRIGGER)
for _ in range(100):
    assert many.value(Bindings(event)).value == [None] * 10_000
for _ in range(10_000):
    assert nothing.value(Bindings(event)).value is None
    assert condition.evaluate(Bindings(event)).problem
print(sys.getrefcount(None))
"""


def test_a_process_survives_a_million_nulls() -> None:
    ended = subprocess.run([sys.executable, "-c", A_MILLION_NULLS], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    if sys.version_info < (3, 12):
        assert IMMORTAL - 10_000_000 < int(ended.stdout) < IMMORTAL + 10_000_000


def test_other_values_that_the_interpreter_shares_keep_their_references() -> None:
    from stepwell.core.cel.expressions import Bindings, Scope, compile_value

    shared = (True, False, 0, 1, 256, "", "a", ())
    values = [True, False, 0, 1, 256, "", "a", [True] * 9, {"a": 0}, [[]], 1.5]
    expression = compile_value("data.value", Scope.TRIGGER)
    before = [sys.getrefcount(item) for item in shared]
    for _ in range(1_000):
        for value in values:
            expression.value(Bindings({"data": {"value": value}}))
    lost = [count - sys.getrefcount(item) for count, item in zip(before, shared, strict=True)]
    assert max(lost) < 500
