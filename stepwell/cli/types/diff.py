"""`stepwell types diff`: compares two schemas and prints what the new one breaks."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepwell.cli.remote.client import Client
from stepwell.cli.remote.environments import EnvOption
from stepwell.cli.types import registered
from stepwell.cli.ui.output import JsonOption, console, fail, print_json

if TYPE_CHECKING:
    from stepwell.event_types.compatibility import Break
    from stepwell.event_types.schema import Schema


class Required(StrEnum):
    BACKWARD = "backward"
    FORWARD = "forward"
    FULL = "full"


def command(
    old: Annotated[str, typer.Argument(help="The old schema: a file, or NAME@VERSION of a server.")],
    new: Annotated[str, typer.Argument(help="The new schema: a file, or NAME@VERSION of a server.")],
    require: Annotated[
        Required | None,
        typer.Option(help="The strict compatibility that is required; the exit code is 1 without it."),
    ] = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two schemas. Backward compatible: events of the old version are valid under the new one. Forward
    compatible: events of the new version are valid under the old one. The exit code is 1 if something breaks; new
    optional fields do not break anything.

    Example: stepwell types diff schemas/order/placed.1.schema.json schemas/order/placed.2.schema.json
    """
    from stepwell.event_types.compatibility import compare

    found = compare(_schema(old, env), _schema(new, env))
    if as_json:
        print_json({
            "level": found.level,
            "backward": [item.as_json() for item in found.backward],
            "forward": [item.as_json() for item in found.forward],
            "breaking": [item.message for item in found.breaking],
        })  # fmt: skip
    else:
        level = {"full": "backward and forward", "none": "neither backward nor forward"}.get(found.level, found.level)
        console.print(f"[bold]{level}[/] compatible")
        _show("events of the old version may be invalid under the new one", found.backward)
        _show("events of the new version may be invalid under the old one", found.forward)
    if found.breaking if require is None else found.level not in (require.value, "full"):
        raise typer.Exit(1)


def _show(title: str, breaks: list[Break]) -> None:
    from stepwell.event_types.schema import json_pointer

    if breaks:
        console.print(f"{title}:", markup=False)
    for change in breaks:
        colour = "yellow" if change.additive else "red"
        place = json_pointer(change.pointer) or "the schema"
        console.print(f"  [{colour}]{'new field' if change.additive else 'breaks':9}[/] ", end="")
        console.print(f"{change.message}  ({place})", markup=False, soft_wrap=True)


def _schema(source: str, env: str | None) -> Schema:
    """The schema of a file, or of NAME@VERSION on the server. Ends the command if it cannot be read."""
    from stepwell.event_types.schema import json_pointer
    from stepwell.event_types.schema_checks import refusals
    from stepwell.project.schemas import read_schema
    from stepwell.project.source import LoadError

    name, at, version = source.rpartition("@")
    if Path(source).exists() or not at:
        try:
            schema: Schema = read_schema(Path(source)).data
        except LoadError as error:
            fail(str(error), 2)
        return schema
    schema = registered.schema(Client(env), name, version)
    for problem in refusals(schema):
        fail(f"{source}{json_pointer(problem.pointer)}: {problem.message}")
    return schema
