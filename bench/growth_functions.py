"""Writes functions into a folder, as many as a row of `growth.py` needs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Json = dict[str, Any]

ONE_HANDLER = """def only(event, context):
    return {"done": True}
"""
LARGE = """import sys

def output(event, context):
    return {"text": "x" * event["event"]["data"]["size"]}

def next_output(event, context):
    return {"text": "y" * len(event["steps"]["first"]["text"])}

def log(event, context):
    sys.stdout.write(("x" * 99 + "\\n") * (event["event"]["data"]["size"] // 100))
"""


def write(folder: Path, definition: Mapping[str, Any], files: Mapping[str, str]) -> None:
    """Writes a function into its own folder. `files` are written to `code/`, by name."""
    home = folder / definition["id"]
    (home / "code").mkdir(parents=True)
    (home / "stepwell.json").write_text(json.dumps(definition))
    for name, text in files.items():
        (home / "code" / name).write_text(text)


def handler(name: str, after: Iterable[Json | str] = ()) -> Json:
    """A step that is a Python handler in `code/`."""
    return _step({"type": "lambda", "handler": name}, after)


def program(after: Iterable[Json | str] = ()) -> Json:
    return _step({"type": "lambda", "command": ["sh", "step.sh"]}, after)


def _step(runtime: Json, after: Iterable[Json | str]) -> Json:
    parents = [{"step": parent} if isinstance(parent, str) else parent for parent in after]
    return {"path": "file://./code", "runtime": runtime, **({"after": parents} if parents else {})}


def function(name: str, steps: Json, *, event: str | None = None, condition: str | None = None) -> Json:
    trigger = {"event": event or f"growth/{name}", **({"expression": condition} if condition else {})}
    return {"id": f"growth-{name}", "triggers": [trigger], "steps": steps}
