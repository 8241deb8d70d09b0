"""`stepwell types push|list|show|default|remove|policy|unknown`: the types that a server knows, and what becomes of
wrong events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.table import Table

from stepwell.cli.remote.client import Client, in_path
from stepwell.cli.remote.environments import EnvOption
from stepwell.cli.ui.output import JsonOption, console, fail, print_json, stderr, warn
from stepwell.cli.ui.tables import local_time
from stepwell.core.definition.problems import Problem
from stepwell.event_types.registry import Policy
from stepwell.event_types.validation import from_pointer
from stepwell.terminal import shown

if TYPE_CHECKING:
    from stepwell.project.event_types import ProjectTypes

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
    from stepwell.project.event_types import project_types
    from stepwell.project.load import load_all

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


def push_types(
    client: Client, types: ProjectTypes, *, may_break: bool = True, dry_run: bool = False
) -> list[dict[str, Any]]:
    """Register types, all or none; what that did, or would do. Ends the command if one is refused, with the places of
    what is wrong. `may_break`: as `event_types.registry.TypeVersion` has it."""
    if not types.types:
        return []
    bodies = [
        {"name": version.name, "version": version.version, "schema": version.schema, "may_break": may_break}
        | ({"policy": version.policy} if version.policy else {})
        for version in types.types
    ]
    path = "/v1/types?dry_run=true" if dry_run else "/v1/types"
    status, answer = client.ask("PUT", path, orjson.dumps({"types": bodies}))
    if status >= 300:
        for place in _places(types, answer):
            stderr.print(place, style="red", markup=False, soft_wrap=True)
        stderr.print("nothing was pushed")
        client.refused(status, answer)
    changes: list[dict[str, Any]] = answer["data"]
    return changes


def _places(types: ProjectTypes, answer: Any) -> Iterator[str]:
    """What is wrong with schemas, each with file, line and column."""
    for error in (answer.get("errors") or ()) if isinstance(answer, dict) else ():
        parts = error["pointer"].split("/")[1:]
        if parts[:1] == ["types"] and parts[2:3] == ["schema"]:
            yield str(types.placed(types.types[int(parts[1])], Problem(from_pointer(parts[3:]), error["message"])))


def list_types(env: EnvOption = None, as_json: JsonOption = False) -> None:
    """List the types of events that a server knows.

    Example: stepwell types list --json
    """
    types = Client(env).get("/v1/types")["data"]
    if as_json:
        print_json(types)
        return
    table = Table("event", "policy", "default", "newest", "versions", box=None, header_style="dim", pad_edge=False)
    for item in types:
        row = [item["name"], item["policy"], item["default"], item["version"], str(len(item["versions"]))]
        table.add_row(*map(shown, row))
    console.print(table if types else "no types are registered; `stepwell types push` registers those in schemas/")


def show(
    name: Annotated[str, _NAME],
    version: Annotated[str | None, typer.Option(help="Whose schema to show; without it: the default.")] = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a type: its policy, its versions, and the schema of one.

    Example: stepwell types show order/placed --version 2026-11-23.1
    """
    value = Client(env).get(f"/v1/types/{in_path(name)}", version=version)
    if as_json:
        print_json(value)
        return
    console.print(f"[bold]{shown(value['name'])}[/]  {shown(value['version'])}  [dim]{shown(value['policy'])}[/]")
    for one in value["versions"]:
        word = ", counts for events without `v`" if one["version"] == value["default"] else ""
        console.print(f"  [dim]{shown(one['version'])} registered {local_time(one['created_at'])}{word}[/]")
    console.print_json(data=value["schema"])


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
    value = Client(env).patch(f"/v1/types/{in_path(name)}", {"policy": policy.value})
    if as_json:
        print_json(value)
    else:
        console.print(f"{shown(value['name'])}: {shown(value['policy'])}")


def default(
    name: Annotated[str, _NAME],
    version: Annotated[str | None, typer.Argument(help="The version that counts for events without `v`.")] = None,
    newest: Annotated[bool, typer.Option("--newest", help="The newest one, whichever that is.")] = False,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which version of a type counts for events that name no `v`: at first the newest. One that is chosen stays
    when newer ones come.

    Example: stepwell types default order/placed 2026-11-23.1
    """
    if (version is None) != newest:
        fail("name a version, or give --newest", 2)
    value = Client(env).patch(f"/v1/types/{in_path(name)}", {"default": version})
    if as_json:
        print_json(value)
    else:
        word = "also when newer ones come" if value["is_chosen"] else "the newest"
        console.print(f"{shown(value['name'])}: {shown(value['default'])} counts for events without `v`, {word}")


def remove(
    name: Annotated[str, _NAME],
    version: Annotated[str, typer.Argument(help="The version to remove.")],
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove a version of a type: events that name it in `v` are wrong from then on. With the last version the type is
    gone, and its events are those of an unknown type.

    Example: stepwell types remove order/placed 2026-11-23.1
    """
    value = Client(env).delete(f"/v1/types/{in_path(name)}", version=version)
    if as_json:
        print_json(value)
        return
    console.print(f"[green]removed[/] {shown(value['name'])} {shown(value['removed'])}")
    if value["default"] is None:
        console.print("that was its last version: events of this name have no type now")
    else:
        console.print(f"{shown(value['default'])} counts for events without `v`")


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
    value = client.get(path) if policy is None else client.put(path, {"unknown_types": policy.value})
    if as_json:
        print_json(value)
    else:
        console.print(f"events of unknown types: {shown(value['unknown_types'])}")


def show_change(change: Mapping[str, Any], dry_run: bool = False) -> None:
    """What a registration did, or would do, as the API answers it."""
    name, version = shown(change["name"]), shown(change["version"])
    if dry_run:
        console.print(f"[yellow]would register[/] type {name} {version}", soft_wrap=True)
    else:
        console.print(f"[green]{shown(change['change'])}[/] {name} {version}  [dim]{shown(change['policy'])}[/]")
    if change["change"] == "created" and change["default"] != change["version"]:
        default = shown(change["default"])
        console.print(f"  {default} still counts for events without `v`: stepwell types default {name} {version}")
    for item in change["breaking"]:
        place = shown(item["pointer"] or "the schema")
        console.print(f"  [yellow]breaks {shown(change['compared_with'])}[/] {place}: {shown(item['message'])}")
    for item in change["affected"]:
        console.print(
            f"  [yellow]affects[/] {shown(item['function_id'])} {shown(item['pointer'])}: {shown(item['message'])}"
        )
