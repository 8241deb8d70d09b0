"""`stepwell types push|list|show|policy|unknown`: the types that a server knows, and what becomes of wrong events."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from stepwell.cli.client import Client, in_path
from stepwell.cli.environments import EnvOption
from stepwell.cli.output import JsonOption, console, fail, print_json, warn
from stepwell.cli.tables import local_time
from stepwell.event_types.types import Policy

if TYPE_CHECKING:
    from stepwell.project.types import ProjectTypes

_NAME = typer.Argument(help="The name of the events.")


def push(
    paths: Annotated[
        list[Path] | None, typer.Argument(exists=True, help="Where to look for schemas; default: here.")
    ] = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register the types in `schemas` folders at or below the paths, and those that triggers carry. A change that would
    break a version is refused; a new version says what it breaks, and which live functions that affects.

    Example: stepwell types push functions/
    """
    from stepwell.project.load import load_all
    from stepwell.project.types import project_types

    functions, errors = load_all(paths or [Path()])
    for error in errors:
        warn(str(error))
    found = project_types(paths or [Path()], functions)
    for warning in found.warnings:
        warn(str(warning))
    if found.problems:
        fail("\n".join(map(str, found.problems)))
    if not found.types:
        fail("no types found; put a JSON Schema into schemas/order/placed.1.schema.json")
    changes = push_types(Client(env), found)
    if as_json:
        print_json(changes)
    else:
        for change in changes:
            show_change(change)


def push_types(client: Client, types: ProjectTypes) -> list[Any]:
    """Register types; ends the command at the first that is refused."""
    changes = []
    for its in types.types:
        body = {"name": its.name, "version": its.version, "schema": its.schema}
        changes.append(client.post("/v1/types", body | ({"policy": its.policy} if its.policy else {})))
    return changes


def list_types(env: EnvOption = None, as_json: JsonOption = False) -> None:
    """List the types of events that a server knows.

    Example: stepwell types list --json
    """
    types = Client(env).get("/v1/types")["data"]
    if as_json:
        print_json(types)
        return
    table = Table("event", "policy", "newest", "versions", box=None, header_style="dim", pad_edge=False)
    for its in types:
        table.add_row(escape(its["name"]), its["policy"], escape(its["version"]), str(len(its["versions"])))
    console.print(table if types else "no types are registered; `stepwell types push` registers those in schemas/")


def show(
    name: Annotated[str, _NAME],
    version: Annotated[str | None, typer.Option(help="Whose schema to show; default: the newest.")] = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a type: its policy, its versions, and the schema of one.

    Example: stepwell types show order/placed --version 2026-11-23.1
    """
    its = Client(env).get(f"/v1/types/{in_path(name)}", version=version)
    if as_json:
        print_json(its)
        return
    console.print(f"[bold]{escape(its['name'])}[/]  {escape(its['version'])}  [dim]{its['policy']}[/]")
    for one in its["versions"]:
        console.print(f"  [dim]{escape(one['version'])} registered {local_time(one['created_at'])}[/]")
    console.print_json(data=its["schema"])


def policy(
    name: Annotated[str, _NAME],
    policy: Annotated[Policy, typer.Argument(help="What becomes of wrong events.")],
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what becomes of events that are not as their type says: `reject` them, or accept them and `warn`; `off`: do
    not look.

    Example: stepwell types policy order/placed reject
    """
    its = Client(env).patch(f"/v1/types/{in_path(name)}", {"policy": policy.value})
    if as_json:
        print_json(its)
    else:
        console.print(f"{escape(its['name'])}: {its['policy']}")


def unknown(
    policy: Annotated[Policy | None, typer.Argument(help="What becomes of them; not given: show it.")] = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say, or show, what becomes of events whose names have no type: at first nothing (`off`).

    Example: stepwell types unknown warn
    """
    client = Client(env)
    path = "/v1/settings"
    its = client.get(path) if policy is None else client.put(path, {"unknown_types": policy.value})
    if as_json:
        print_json(its)
    else:
        console.print(f"events of unknown types: {its['unknown_types']}")


def show_change(change: Mapping[str, Any]) -> None:
    """What a registration did, as the API answers it."""
    name, version = escape(change["name"]), escape(change["version"])
    console.print(f"[green]{change['change']}[/] {name} {version}  [dim]{change['policy']}[/]")
    for its in change["breaking"]:
        place = escape(its["pointer"] or "the schema")
        console.print(f"  [yellow]breaks {escape(change['compared_with'])}[/] {place}: {escape(its['message'])}")
    for its in change["affected"]:
        console.print(f"  [yellow]affects[/] {its['function_id']} {its['pointer']}: {escape(its['message'])}")
