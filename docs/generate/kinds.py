"""The kinds of errors that the code gives to attempts and runs, found in the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from stepwell.core.run.run_error import _NOT_STORED, CONDITION_FAILED

STEPWELL = Path(__file__).parents[2] / "stepwell"
FOLDERS = ("core/run", "engine", "local", "aws/engine", "aws/queues", "aws/steps")
CALLS = ("failure", "_failed", "_error", "Error")  # what makes an error; the first argument is the kind


def kinds() -> set[str]:
    """Every kind that stands in the code."""
    found = {CONDITION_FAILED, str(_NOT_STORED["kind"])}
    for folder in FOLDERS:
        for path in (STEPWELL / folder).rglob("*.py"):
            found |= set(_of(ast.parse(path.read_text("utf-8"))))
    return found


def _of(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        values = [*(node.args[:1] if name in CALLS else ()), *(k.value for k in node.keywords if k.arg == "kind")]
        yield from (value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str))
