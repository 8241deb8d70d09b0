"""Return values of Python handlers are encoded exactly as by Lambda's own runtime, compared for every value."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import fractions
import json
import math
import pathlib
import types
import uuid
from collections import ChainMap, Counter, OrderedDict, UserDict, UserList, defaultdict, deque, namedtuple
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from awslambdaric.lambda_runtime_exception import FaultException
from awslambdaric.lambda_runtime_marshaller import LambdaMarshaller
from hypothesis import given
from hypothesis import strategies as st

from stepwell.local.runners.python_marshal import MarshalError, marshal
from stepwell.testing.lambdas.destinations import as_json


def by_lambda(value: object, monkeypatch: pytest.MonkeyPatch) -> str:
    """The text of the answer or of the error."""
    monkeypatch.setenv("AWS_EXECUTION_ENV", "AWS_Lambda_python3.13")
    try:
        text, _ = LambdaMarshaller().marshal_response(value)
    except FaultException as error:
        return f"{error.exception_type}: {error.msg}"
    return as_json(text) if isinstance(text, bytes) else str(text)


def by_us(value: object) -> str:
    try:
        return marshal(value).decode()
    except MarshalError as error:
        return f"Runtime.MarshalError: {error}"


class Point(NamedTuple):
    x: int
    y: Any


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    HIGH = 3


class Word(str, enum.Enum):  # noqa: UP042 (what people write)
    HELLO = "hello"


class Text(str):
    def __str__(self) -> str:
        return "other"

    __repr__ = __str__


class Whole(int):
    def __repr__(self) -> str:
        return "seven"


class Real(float):
    def __repr__(self) -> str:
        return "half"


@dataclasses.dataclass
class Order:
    total: int


class AsDict:
    """Has `_asdict`, like named tuples."""

    def __init__(self, fields: Any) -> None:
        self.fields = fields

    def _asdict(self) -> Any:
        return self.fields


class Dear(Decimal):
    pass


class Broken:
    def _asdict(self) -> Any:
        raise RuntimeError("cannot say")


class Listed(list[int]):
    """The standard library's encoder treats it as a list."""

    def _asdict(self) -> dict[str, int]:
        return {"first": self[0]}


class Members(dict[str, int]):
    pass


def circular_list() -> Any:
    items: list[Any] = [1]
    items.append({"a": items})
    return items


def circular_dict() -> Any:
    fields: dict[str, Any] = {}
    fields["its"] = fields
    return fields


SHARED: list[int] = [1]
VALUES: list[Any] = [
    # what JSON has
    None, True, False, 0, -1, 1.5, 1e100, 1e-7, 5e-324, -0.0, 10**20, -(2**63), "", "text", "é世😀", [], {}, [[]],
    [1, [2, {}]],
    {"a": {"b": [None]}}, "\x00\x1f\x7f\x80\u2028\u2029\\\"/\b\f\n\r\t", {"é\n": 1}, [[[[[[0]]]]]], [SHARED, SHARED],
    # numbers that JSON does not have
    math.nan, math.inf, -math.inf, [math.nan], {"a": -math.inf}, 10**400, 10**5000,
    # Decimal, as boto3 returns it
    Decimal("12.50"), Decimal("3"), Decimal("-0"), Decimal("1E+2"), Decimal("1E-10"), Decimal("1e400"),
    Decimal("0E-8"),
    Decimal("123456789012345678901234567890.123"), Decimal("NaN"), Decimal("-NaN"), Decimal("sNaN"),
    Decimal("Infinity"),
    Decimal("-Infinity"), {"total": Decimal("12.50"), "count": Decimal("3")}, Dear("1.0"), [Decimal(1)] * 3,
    # bytes
    b"x", b"", b'{"a": 1}', b"\xff",
    b"[1, ", b"NaN", {"a": b"x"}, [b"\xc3\xa9"], {"a": b"\xff"}, {b"k": 1}, {b"\xff": 1},
    bytearray(b"x"), memoryview(b"x"), [bytearray(b"x")],
    # keys
    {1: "a"}, {1.5: "a"}, {None: 1}, {True: 1, False: 2}, {1: "a", "1": "b"}, {math.nan: 1}, {math.inf: 1},
    {10**20: 1},
    {(1, 2): 3}, {frozenset(): 1}, {Decimal(1): 1}, {datetime.date(2026, 1, 1): 1}, {Level.HIGH: 1}, {Word.HELLO: 1},
    {Colour.RED: 1}, {Whole(7): 1}, {Real(0.5): 1}, {Text("k"): 1}, {object: 1},
    # sequences and mappings
    (), (1, 2), ((),), Point(1, (2,)), [Point(1, Point(2, 3))], namedtuple("Empty", "")(), OrderedDict(a=1),
    defaultdict(int, a=1),
    Counter("aab"), Members(a=1), {1, 2}, frozenset({1}), deque([1]), range(3), (i for i in range(3)), iter([1]),
    UserDict(a=1),
    UserList([1]), ChainMap({"a": 1}), types.MappingProxyType({"a": 1}), {}.keys(), {}.values(),
    types.SimpleNamespace(a=1),
    # what has _asdict
    AsDict({"a": 1}), AsDict([1]), AsDict(None), [AsDict({"a": AsDict({})})], AsDict, Point, Broken(), [Broken()],
    # subclasses of what JSON has
    Level.HIGH, Word.HELLO, Colour.RED, Text("text"), Whole(7), Real(0.5), [Text("text"), Whole(7), Real(0.5)],
    {"a": Level.HIGH},
    # everything else
    object(), Order(1), [Order(1)], datetime.datetime(2026, 1, 1), datetime.date(2026, 1, 1), datetime.time(1),
    datetime.timedelta(1),
    uuid.UUID(int=0), pathlib.PurePosixPath("/x"), fractions.Fraction(1, 2), 1j, print, len, lambda: 0, int,
    types, Ellipsis,
    NotImplemented, ValueError("x"), {"a": {"b": object()}},
    # values that contain themselves
    circular_list(), circular_dict(), [circular_dict()],
    # nested in what JSON has
    {"a": [1, {"b": (Point(1, {"c": [Point(2, 3)]}),)}]}, [[{"a": Listed([1])}]], {"a": [Members(b=1)]},
    {"a": [Decimal("1.50")]},
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_return_value_is_written_as_lambda_writes_it(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    actual, expected = by_us(value), by_lambda(value, monkeypatch)
    if value == b"NaN" or isinstance(value, bytes):
        assert actual == expected or json.loads(actual) == json.loads(expected)
    else:
        assert actual == expected


@pytest.mark.parametrize("value", ["\ud800", {"a": "\udfff"}, {"\ud800": 1}])
def test_a_lone_surrogate_is_an_error_of_the_handler(value: Any) -> None:
    assert by_us(value).startswith("Runtime.MarshalError: Unable to marshal response: 'utf-8' codec can't encode")


def test_endless_nesting_is_an_error_of_the_handler() -> None:
    value: Any = 0
    for _ in range(100_000):
        value = [value]
    assert by_us(value).startswith("Runtime.MarshalError: Unable to marshal response: maximum recursion depth exceeded")


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.decimals() | st.binary()
KEYS = st.text() | st.integers() | st.booleans() | st.none() | st.floats() | st.binary() | st.tuples()


@given(
    st.recursive(
        SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner) | st.tuples(inner), max_leaves=20
    )
)
def test_any_value_is_written_as_lambda_writes_it(value: Any) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        if not isinstance(value, bytes):
            assert by_us(value) == by_lambda(value, monkeypatch)
