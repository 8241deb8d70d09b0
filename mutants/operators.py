"""The kinds of small faults that can be made in a module, each as a change of the text."""

from __future__ import annotations

import ast
import copy
import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
}
_CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, slots=True)
class Mutant:
    """A fault: characters `start` to `end` of a module's text are replaced by `text`."""

    path: str  # of the module, relative to the repository
    function: str  # qualified name of the enclosing function or class; "<module>" if there is none
    line: int  # from 1
    operator: str
    start: int
    end: int
    text: str
    was: str  # the affected lines before the change
    becomes: str  # the affected lines after the change

    def apply(self, source: str) -> str:
        return source[: self.start] + self.text + source[self.end :]

    def diff(self, source: str) -> str:
        changed = self.apply(source)
        lines = difflib.unified_diff(source.splitlines(), changed.splitlines(), self.path, self.function, lineterm="")
        return "\n".join(lines)


def mutants_of(root: Path, module: Path) -> list[Mutant]:
    """All mutants of a module, in the order of the text."""
    source = module.read_text("utf-8")
    finder = _Finder(source, module.relative_to(root).as_posix())
    finder.visit(ast.parse(source))
    return sorted(finder.found, key=lambda mutant: (mutant.start, mutant.end, mutant.text))


class _Finder(ast.NodeVisitor):
    def __init__(self, source: str, path: str) -> None:
        self.found: list[Mutant] = []
        self._source = source
        self._path = path
        self._inside: list[ast.AST] = []
        self._line_starts = [0]
        for line in source.splitlines(keepends=True):
            self._line_starts.append(self._line_starts[-1] + len(line))

    def visit(self, node: ast.AST) -> None:
        if _is_left_out(node):
            return
        if isinstance(node, ast.expr):
            for operator, mutated in _expressions(node):
                self._add(node, operator, f"({ast.unparse(mutated)})")
        elif isinstance(node, ast.stmt):
            for operator, text in _statements(node):
                self._add(node, operator, text)
        is_scope = isinstance(node, (*_FUNCTIONS, ast.ClassDef))
        if is_scope:
            self._inside.append(node)
        for child in _children(node):
            self.visit(child)
        if is_scope:
            self._inside.pop()

    def _add(self, node: ast.expr | ast.stmt, operator: str, text: str) -> None:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start, end = self._offset(node.lineno, node.col_offset), self._offset(node.end_lineno, node.end_col_offset)
        first, last = self._line_starts[node.lineno - 1], self._line_starts[node.end_lineno]
        was = self._source[first:last]
        becomes = self._source[first:start] + text + self._source[end:last]
        self.found.append(
            Mutant(self._path, self._function(), node.lineno, operator, start, end, text, _flat(was), _flat(becomes))
        )

    def _offset(self, line: int, column: int) -> int:
        """The index of a character. `ast` gives columns in bytes of UTF-8."""
        start = self._line_starts[line - 1]
        text = self._source[start : self._line_starts[line]]
        return start + len(text.encode()[:column].decode())

    def _function(self) -> str:
        """The qualified name of the innermost scope, like `co_qualname`."""
        name = ""
        for node in self._inside:
            assert isinstance(node, (*_FUNCTIONS, ast.ClassDef))
            name += ("." if name else "") + node.name
            if isinstance(node, _FUNCTIONS) and node is not self._inside[-1]:
                name += ".<locals>"
        return name or "<module>"


def _flat(lines: str) -> str:
    return " ".join(lines.split())


def _is_left_out(node: ast.AST) -> bool:
    """Whether faults in this node do not count: types, messages for people, and code that only type checkers read.

    Python 3.11 does not report the positions of the parts of an f-string, so these are left out too.
    """
    match node:
        case ast.JoinedStr() | ast.Assert() | ast.pattern() | ast.Import() | ast.ImportFrom():
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.ClassDef(bases=[*_, ast.Name(id="Protocol")]):
            return True
        case ast.FunctionDef(name="__repr__" | "__str__"):
            return True
    return False


def _children(node: ast.AST) -> Iterator[ast.AST]:
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params", "bases"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child


def _expressions(node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    match node:
        case ast.Compare():
            for i, comparison in enumerate(node.ops):
                changed = copy.deepcopy(node)
                changed.ops[i] = _COMPARISONS[type(comparison)]()
                yield "comparison", changed
        case ast.BoolOp(op=op, values=values):
            other = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield "and or", ast.BoolOp(other, values)
            for i in range(len(values)):
                rest = values[:i] + values[i + 1 :]
                yield "condition left out", rest[0] if len(rest) == 1 else ast.BoolOp(op, rest)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield "not", operand
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC and not _is_text(left, right):
            yield "arithmetic", ast.BinOp(left, _ARITHMETIC[type(op)](), right)
        case ast.Constant(value=bool(value)):
            yield "constant", ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield "constant", ast.Constant(value + 1)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield "branches", ast.IfExp(test, orelse, body)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if name in _CALLS:
            yield "call", ast.Call(ast.Name(_CALLS[name]), args, keywords)


def _is_text(*operands: ast.expr) -> bool:
    """Whether an operand is a text or a list, for which other operators would only raise an error."""
    kinds = (ast.JoinedStr, ast.List, ast.Tuple)
    return any(
        isinstance(o, kinds) or (isinstance(o, ast.Constant) and isinstance(o.value, str | bytes)) for o in operands
    )


def _statements(node: ast.stmt) -> Iterator[tuple[str, str]]:
    match node:
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.AugAssign() | ast.Delete() | ast.Raise():
            yield "statement left out", "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "statement left out", "pass"
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield "return", "return None"
        case ast.Continue():
            yield "loop", "break"
        case ast.Break():
            yield "loop", "continue"
