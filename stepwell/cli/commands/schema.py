"""`stepwell schema`: prints the JSON Schemas with which editors check definitions, webhook rules and sources."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from stepwell.cli.ui.output import console, fail
from stepwell.terminal import shown

_FOLDER = Path(__file__).parents[2] / "schemas"


class SchemaKind(StrEnum):
    FUNCTION = "function"
    SOURCE = "source"
    WEBHOOK = "webhook"


def command(
    kind: Annotated[SchemaKind, typer.Argument(help="The kind of file that the schema describes.")] = (
        SchemaKind.FUNCTION
    ),
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file to write; default: stdout.")] = None,
) -> None:
    """Print the JSON Schema with which editors complete and check definitions. `stepwell init` writes it next to a new
    definition, and refers to it: as `$schema` in JSON, as `# yaml-language-server: $schema=...` in YAML.

    Example: stepwell schema --out .stepwell/function.schema.json
    """
    if out is None:
        typer.echo(_text(kind), nl=False)
        return
    try:
        write_schema(kind, out)
    except OSError as error:
        fail(f"cannot write {out}: {error.strerror}")
    console.print(f"wrote {shown(out)}", soft_wrap=True)


def write_schema(kind: SchemaKind, file: Path) -> Path:
    """Writes a schema and returns the file's path. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(_text(kind), "utf-8")
    return file


def _text(kind: SchemaKind) -> str:
    return (_FOLDER / f"{kind}.schema.json").read_text("utf-8")
