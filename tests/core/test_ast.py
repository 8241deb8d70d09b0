"""Tests the decoded syntax tree of expressions."""

from __future__ import annotations

import pytest

from stepwell.core.cel.ast import Call, Comprehension, Const, Ident, Items, Node, Select, conjuncts, path, walk
from stepwell.core.cel.expressions import Scope, compile_expression


def tree(source: str) -> Node:
    return compile_expression(source, Scope.MATCH).tree


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("null", None),
        ("true", True),
        ("false", False),
        ("0", 0),
        ("-1", -1),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("18446744073709551615u", 2**64 - 1),
        ("-1.5", -1.5),
        ("1e300", 1e300),
        ("''", ""),
        ("'é😀\\n\"'", 'é😀\n"'),
        ("b'a\\x00'", b"a\0"),
    ],
)
def test_a_constant_keeps_its_value_and_type(written: str, value: object) -> None:
    found = tree(f"event.x == {written}")
    assert isinstance(found, Call)
    assert found.args[1] == Const(value)  # type: ignore[arg-type]
    assert type(found.args[1].value) is type(value)


def test_operators_functions_and_fields_are_nodes() -> None:
    assert tree("event.name.startsWith('a')") == Call(
        "startsWith", Select(Ident("event"), "name", False), (Const("a"),)
    )
    assert tree("!has(data.a)") == Call("!_", None, (Select(Ident("data"), "a", True),))
    assert tree("data.a in [1, {'k': 2}]") == Call(
        "@in", None, (Select(Ident("data"), "a", False), Items((Const(1), Items((Const("k"), Const(2))))))
    )


def test_a_macro_is_a_fold_with_its_variable() -> None:
    loop = tree("data.l.exists(x, x == 1)")
    assert isinstance(loop, Comprehension)
    assert loop.variable == "x"
    assert loop.range == Select(Ident("data"), "l", False)
    assert Call("_==_", None, (Ident("x"), Const(1))) in list(walk(loop))


def test_walking_meets_every_node_once() -> None:
    names = [
        node.name for node in walk(tree("[event.a, {'k': data.b}].exists(x, x == user.c)")) if isinstance(node, Ident)
    ]
    assert sorted(name for name in names if not name.startswith("@")) == ["data", "event", "user", "x"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("event.a.b", ("event", "a", "b")),
        ("event['a-b'].c", ("event", "a-b", "c")),
        ("event['a']['b c']", ("event", "a", "b c")),
        (".event.a", ("event", "a")),
        ("event", ("event",)),
        ("event.a[0]", None),  # a list's entry
        ("event[data.key]", None),
        ("has(event.a)", None),
        ("dyn(event).a", None),
    ],
)
def test_a_path_consists_only_of_fields(source: str, expected: tuple[str, ...] | None) -> None:
    assert path(tree(source)) == expected


def test_conjuncts_are_those_of_the_outermost_ands() -> None:
    found = list(conjuncts(tree("event.a && (event.b && (event.c || event.d)) && !(event.e && event.f)")))
    assert [path(node) for node in found[:2]] == [("event", "a"), ("event", "b")]
    assert [node.function for node in found[2:] if isinstance(node, Call)] == ["_||_", "!_"]


def test_the_longest_expression_is_read() -> None:
    assert len(list(conjuncts(tree("&&".join(["event.a"] * 220))))) == 220
