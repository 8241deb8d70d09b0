"""Generates typed code for event types, by running well-known tools that the user has installed.

A tool gets one schema without external references, and writes one file.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwell.event_types.described import describes
from stepwell.event_types.schema import DIALECT, Schema

_TIMEOUT_S = 120


class CannotGenerate(Exception):
    """The code cannot be generated. The message gives the reason and what to do."""


@dataclass(frozen=True, slots=True)
class Language:
    suffix: str
    program: str
    install: str
    arguments: tuple[str, ...]  # {input} and {output} are files


LANGUAGES = {
    "python": Language(
        ".py", "datamodel-codegen", "pip install datamodel-code-generator",
        ("--input", "{input}", "--output", "{output}", "--input-file-type", "jsonschema", "--output-model-type",
         "typing.TypedDict", "--target-python-version", "3.11", "--disable-timestamp"),
    ),
    "typescript": Language(
        ".ts", "json2ts", "npm install --save-dev json-schema-to-typescript",
        ("--input", "{input}", "--output", "{output}", "--no-additionalProperties"),
    ),
}  # fmt: skip


def generate(name: str, v: str, schema: Schema, language: str) -> str:
    """The source text of an event's type in `python` or `typescript`. Raises CannotGenerate."""
    tool = LANGUAGES[language]
    program = _program(tool.program)
    if program is None:
        raise CannotGenerate(f"{language} needs {tool.program}, which is not installed; run: {tool.install}")
    with tempfile.TemporaryDirectory(prefix="stepwell-types-") as folder:
        source, target = Path(folder, "schema.json"), Path(folder, "types" + tool.suffix)
        source.write_text(json.dumps(event_type(name, v, schema), ensure_ascii=False), "utf-8")
        arguments = [part.format(input=source, output=target) for part in tool.arguments]
        try:
            done = subprocess.run(
                [program, *arguments], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CannotGenerate(f"{tool.program} could not generate the code of {name}: {error}") from None
        if done.returncode or not target.is_file():
            text = (done.stderr or done.stdout).strip()[-500:]
            raise CannotGenerate(f"{tool.program} could not generate the code of {name}: {text}")
        return target.read_text("utf-8")


def file_name(name: str, language: str) -> str:
    """The name of the generated file: order_placed.py for order/placed."""
    parts = re.findall(r"[A-Za-z0-9]+", name) or ["event"]
    return "_".join(word.lower() for word in parts) + LANGUAGES[language].suffix


def event_type(name: str, v: str, schema: Schema) -> dict[str, Any]:
    """The schema of the whole event, with titles from which the tools make type names."""
    title = "".join(word[:1].upper() + word[1:] for word in re.findall(r"[A-Za-z0-9]+", name)) or "Event"
    if title[0].isdecimal():
        title = f"Event{title}"
    about = f"Version {v} of {name}."
    if not isinstance(schema, dict):
        schema = {}
    if describes(schema) == "event":
        return {"$schema": DIALECT, **schema, "title": title, "description": about}
    data = f"{title}Data"
    inner = _moved({key: value for key, value in schema.items() if key not in ("$schema", "$id", "$defs")}, data)
    definitions = {key: _moved(value, data) for key, value in schema.get("$defs", {}).items()}
    return {
        "$schema": DIALECT,
        "title": title,
        "description": about,
        "type": "object",
        "required": ["name", "data"],
        "properties": {
            "name": {"const": name},
            "data": {"$ref": f"#/$defs/{data}"},
            "user": {"type": "object", "additionalProperties": True},
            "id": {"type": "string"},
            "ts": {"type": "integer", "description": "Milliseconds since 1970."},
            "v": {"type": ["string", "null"]},
        },
        "$defs": {**definitions, data: {**inner, "title": data}},
    }


def _moved(value: Any, data: str) -> Any:
    """A part of the schema with `$ref`s that point to the new place of the root, below `$defs/<data>`."""
    if isinstance(value, list):
        return [_moved(item, data) for item in value]
    if not isinstance(value, dict):
        return value
    moved = {key: _moved(item, data) for key, item in value.items()}
    ref = moved.get("$ref")
    if isinstance(ref, str) and (ref == "#" or (ref.startswith("#/") and not ref.startswith("#/$defs/"))):
        moved["$ref"] = f"#/$defs/{data}{ref[1:]}"
    return moved


def _program(name: str) -> str | None:
    """The path of a tool: from this Python environment, PATH, or node_modules of the project; None if not found."""
    installed = Path(sys.prefix, "bin", name)
    if installed.is_file():
        return str(installed)
    if found := shutil.which(name):
        return found
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "node_modules" / ".bin" / name).is_file():
            return str(folder / "node_modules" / ".bin" / name)
    return None
