"""Checks one expression against the shapes of the variables: finds errors and doubtful parts.

Only the syntax tree is read; nothing is evaluated. A field that `has()` has tested counts as present.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from stepwell.core.cel.ast import Call, Comprehension, Const, Ident, Items, Node, Select, path
from stepwell.core.definition.problems import nearest, shown
from stepwell.event_types.expression_words import compared, equals, kinds_in_words, mixed, named
from stepwell.event_types.has_guards import Paths, canonical, proven
from stepwell.event_types.shapes import ANY, BOOL, DYNAMIC, STRING, Shape, either, number, of_constant

_ORDERED = frozenset({"number", "string", "bool", "bytes", "timestamp", "duration"})
_ADDED = frozenset({"number", "string", "bytes", "list", "timestamp", "duration"})
_ON_TEXT = ("contains", "startsWith", "endsWith", "matches")
_SIZED = frozenset({"string", "bytes", "list", "map"})
_TIMES = frozenset({"timestamp", "duration"})
_CONVERTED = {  # function name -> kinds of the argument, kind of the result
    "int": (frozenset({"number", "string", "timestamp"}), "number"),
    "uint": (frozenset({"number", "string"}), "number"),
    "double": (frozenset({"number", "string"}), "number"),
    "bool": (frozenset({"bool", "string"}), "bool"),
    "string": (frozenset({"bool", "string", "number", "bytes", "timestamp", "duration"}), "string"),
    "bytes": (frozenset({"string", "bytes"}), "bytes"),
    "timestamp": (frozenset({"string", "number", "timestamp"}), "timestamp"),
    "duration": (frozenset({"string", "number", "duration"}), "duration"),
}
_NUMBERS = {"double": "fraction"}

Variables = Mapping[str, Shape]
_NONE: Paths = frozenset()


class Wanted(NamedTuple):
    """The kinds of values that a place needs, and a text about them."""

    kinds: frozenset[str]
    text: str


CONDITION = Wanted(frozenset({"bool"}), "a condition must be true or false")
MOMENT = Wanted(
    frozenset({"timestamp", "string", "number"}), "a time is a timestamp, an RFC 3339 text or milliseconds since 1970"
)


class ExpressionChecker:
    """The messages about an expression: errors (`wrong`) and warnings (`doubts`), in the order of the expression."""

    def __init__(self, tree: Node, variables: Variables, source: str, wanted: Wanted | None) -> None:
        """`wanted`: what the value must be; None: anything."""
        self._wrong: dict[str, None] = {}
        self._doubts: dict[str, None] = {}
        self._source = source
        shape = self._shape(tree, variables, _NONE)
        if wanted is not None and not shape.kinds & wanted.kinds:
            self._complain(tree, f"{named(tree)} is {kinds_in_words(shape)}, but {wanted.text}")

    @property
    def wrong(self) -> list[str]:
        return list(self._wrong)

    @property
    def doubts(self) -> list[str]:
        return list(self._doubts)

    def _complain(self, node: Node, message: str) -> None:
        self._wrong[message + self._where(node)] = None

    def _where(self, node: Node) -> str:
        """The column of a field, found by the name in the source, because the tree has no positions."""
        fields = path(node)
        written = ".".join(fields) if fields else ""
        at = self._source.find(written) if written else -1
        return f" (column {at + 1} of the expression)" if at >= 0 and "\n" not in self._source[:at] else ""

    def _shape(self, node: Node, variables: Variables, guarded: Paths) -> Shape:
        match node:
            case Const():
                return of_constant(node.value)
            case Ident():
                return variables.get(node.name, DYNAMIC)
            case Select(test_only=True):
                self._shape(node.operand, variables, guarded)
                return BOOL
            case Select():
                return self._field(node, node.operand, node.field, variables, guarded)
            case Call():
                return self._call(node, variables, guarded)
            case Comprehension():
                return self._loop(node, variables, guarded)
            case Items():
                for part in node.parts:
                    self._shape(part, variables, guarded)
                return Shape(frozenset({"list", "map"}))

    def _field(self, node: Node, operand: Node, name: str, variables: Variables, guarded: Paths) -> Shape:
        above = self._shape(operand, variables, guarded)
        if "map" not in above.kinds:
            self._complain(node, f"{named(node)}: {named(operand)} is {kinds_in_words(above)}, which has no fields")
            return DYNAMIC
        found = above.field(name)
        is_guarded = canonical(path(node)) in guarded
        if found is None and not is_guarded:
            self._complain(node, f"{named(node)}: there is no field `{name}`; {nearest(name, above.fields)}")
        elif found is not None and found.optional and not is_guarded:
            text = named(node)
            self._doubts[f"{text} may be missing, and then this is an error; check has({text.strip('`')}) first"] = None
        return Shape(found.kinds, found.known) if found is not None else DYNAMIC

    # --- operators ---

    def _call(self, call: Call, variables: Variables, guarded: Paths) -> Shape:
        name, args = call.function, call.args
        if name in ("_&&_", "_||_"):
            return self._logical(call, variables, guarded)
        if name == "_?_:_":
            condition, yes, no = args
            self._truth(condition, variables, guarded)
            return either(
                self._shape(way, variables, guarded | proven(condition, holds))
                for way, holds in ((yes, True), (no, False))
            )
        if name == "!_":
            self._truth(args[0], variables, guarded)
            return BOOL
        if name == "_[_]":
            return self._index(call, variables, guarded)
        operands = (*(() if call.target is None else (call.target,)), *args)
        shapes = [self._shape(operand, variables, guarded) for operand in operands]
        check = _OPERATORS.get(name)
        if check is not None and len(operands) == 2:
            return check(self, name, operands, shapes)
        return self._function(name, operands, shapes)

    def _logical(self, call: Call, variables: Variables, guarded: Paths) -> Shape:
        """The shape of `&&` or `||`. Both evaluate their sides in any order, so each side guards the other."""
        holds = call.function == "_&&_"
        for i, arg in enumerate(call.args):
            others = (proven(other, holds) for j, other in enumerate(call.args) if j != i)
            self._truth(arg, variables, guarded.union(*others))
        return BOOL

    def _truth(self, node: Node, variables: Variables, guarded: Paths) -> None:
        shape = self._shape(node, variables, guarded)
        if "bool" not in shape.kinds:
            self._complain(node, f"{named(node)} is {kinds_in_words(shape)}, not true or false")

    def _index(self, call: Call, variables: Variables, guarded: Paths) -> Shape:
        operand, index = call.args
        if isinstance(index, Const) and isinstance(index.value, str):
            return self._field(call, operand, index.value, variables, guarded)
        shape = self._shape(operand, variables, guarded)
        self._shape(index, variables, guarded)
        if not shape.kinds & {"list", "map"}:
            self._complain(operand, f"{named(operand)} is {kinds_in_words(shape)}, which has no entries")
        return shape.elements if "map" not in shape.kinds else DYNAMIC

    def _equal(self, name: str, operands: tuple[Node, ...], shapes: list[Shape]) -> Shape:
        for (node, shape), (other, that) in (
            zip(operands, shapes, strict=True),
            reversed([*zip(operands, shapes, strict=True)]),
        ):
            if isinstance(other, Const) and shape.kinds & that.kinds:
                self._possible(node, shape, [other])
        one, two = shapes
        if one.kinds & two.kinds:
            return BOOL
        never = "always true" if name == "_!=_" else "never true"
        if {"null"} in (one.kinds, two.kinds):
            node = operands[0] if two.kinds == {"null"} else operands[1]
            self._doubts[f"{named(node)} is never null; use has() to test whether it is present"] = None
        else:
            self._complain(operands[0], f"{compared(operands, shapes)}, which is {never}")
        return BOOL

    def _possible(self, node: Node, shape: Shape, constants: list[Const]) -> None:
        """Reports an error if none of the constants is a possible value of the node."""
        values = shape.values
        if values is None or any(equals(value, const.value) for value in values for const in constants):
            return
        texts = [value for value in values if isinstance(value, str)]
        hint = f"; {nearest(str(constants[0].value), texts)}" if texts else ""
        written = ", ".join(shown(const.value) for const in constants)
        self._complain(node, f"{named(node)} is never {written}{hint}")

    def _ordered(self, name: str, operands: tuple[Node, ...], shapes: list[Shape]) -> Shape:
        for node, shape in zip(operands, shapes, strict=True):
            if not shape.kinds & _ORDERED:
                self._complain(node, f"{named(node)} is {kinds_in_words(shape)}, which has no order")
                return BOOL
        if not shapes[0].kinds & shapes[1].kinds & _ORDERED:
            self._complain(operands[0], f"{compared(operands, shapes)}, which have no order")
        return BOOL

    def _in(self, name: str, operands: tuple[Node, ...], shapes: list[Shape]) -> Shape:
        (one, shape), (many, all_) = zip(operands, shapes, strict=True)
        if not all_.kinds & {"list", "map"}:
            self._complain(many, f"{named(many)} is {kinds_in_words(all_)}, but `in` needs a list or an object")
        elif isinstance(many, Items) and many.parts and all(isinstance(part, Const) for part in many.parts):
            constants = [part for part in many.parts if isinstance(part, Const)]
            if not shape.kinds & frozenset().union(*(of_constant(c.value).kinds for c in constants)):
                self._complain(one, f"{named(one)} is {kinds_in_words(shape)}, but none of the values after `in` is")
            else:
                self._possible(one, shape, constants)
        elif all_.kinds == {"list"} and not all_.elements.kinds & shape.kinds:
            item = kinds_in_words(all_.elements)
            self._complain(one, f"{named(one)} is {kinds_in_words(shape)}, but {named(many)} contains {item}")
        return BOOL

    def _arithmetic(self, name: str, operands: tuple[Node, ...], shapes: list[Shape]) -> Shape:
        one, two = shapes
        if (one.kinds | two.kinds) & _TIMES:
            return DYNAMIC
        common = one.kinds & two.kinds & (_ADDED if name == "_+_" else frozenset({"number"}))
        if not common:
            message = f"`{name.strip('_')}` does not work with {kinds_in_words(one)} and {kinds_in_words(two)}"
            self._complain(operands[0], f"{message}: {named(operands[0])}, {named(operands[1])}")
        if not one.numbers or not two.numbers or one.kinds | two.kinds != {"number"}:
            return Shape(common or ANY)
        numbers = one.numbers | two.numbers
        if "fraction" in numbers and (len(numbers) > 1 or name == "_%_"):
            self._complain(operands[0], mixed(name.strip("_"), operands, shapes))
        return number(*numbers)

    # --- functions and loops ---

    def _function(self, name: str, operands: tuple[Node, ...], shapes: list[Shape]) -> Shape:
        if name in _ON_TEXT:
            for node, shape in zip(operands, shapes, strict=True):
                self._takes(name, node, shape, frozenset({"string"}))
            return BOOL
        if name == "@not_strictly_false":
            return BOOL
        if not operands:
            return DYNAMIC
        if name in _CONVERTED:
            takes, gives = _CONVERTED[name]
            self._takes(name, operands[0], shapes[0], takes)
            return number(_NUMBERS.get(name, "integer")) if gives == "number" else Shape(frozenset({gives}))
        if name == "size":
            self._takes(name, operands[0], shapes[0], _SIZED)
            return number("integer")
        if name == "-_":
            self._takes("-", operands[0], shapes[0], frozenset({"number", "duration"}))
            return Shape(shapes[0].kinds & {"number", "duration"} or ANY, calculated=shapes[0].numbers)
        if name.startswith("get"):
            self._takes(name, operands[0], shapes[0], _TIMES)
            return number("integer")
        return DYNAMIC

    def _takes(self, name: str, node: Node, shape: Shape, kinds: frozenset[str]) -> None:
        if not shape.kinds & kinds:
            advice = "; write timestamp(...)" if kinds == _TIMES and "string" in shape.kinds else ""
            self._complain(node, f"`{name}` does not work with {named(node)}, {kinds_in_words(shape)}{advice}")

    def _loop(self, loop: Comprehension, variables: Variables, guarded: Paths) -> Shape:
        over = self._shape(loop.range, variables, guarded)
        if not over.kinds & {"list", "map"}:
            self._complain(
                loop.range, f"{named(loop.range)} is {kinds_in_words(over)}, which has no entries to loop over"
            )
        entries = [over.elements] if "list" in over.kinds else []
        entries += [STRING] if "map" in over.kinds else []
        inside = {**variables, loop.variable: either(entries) if entries else DYNAMIC}
        guarded = frozenset(fields for fields in guarded if fields[0] != loop.variable)
        for part in (loop.condition, loop.step):
            self._shape(part, inside, guarded)
        return Shape(frozenset({"list"})) if isinstance(loop.init, Items) else BOOL


_Operator = Callable[[ExpressionChecker, str, tuple[Node, ...], list[Shape]], Shape]
_OPERATORS: dict[str, _Operator] = {
    **dict.fromkeys(("_==_", "_!=_"), ExpressionChecker._equal),
    **dict.fromkeys(("_<_", "_<=_", "_>_", "_>=_"), ExpressionChecker._ordered),
    **dict.fromkeys(("_+_", "_-_", "_*_", "_/_", "_%_"), ExpressionChecker._arithmetic),
    "@in": ExpressionChecker._in,
}
