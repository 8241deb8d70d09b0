"""`stepwell types push|list|show|default|remove|policy|unknown`: manages the event types of a server."""

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

_NAME = typer.Argument(help="The event's name.")


def push(
    paths: Annotated[
        list[Path] | None, typer.Argument(exists=True, help="Folders to search for schemas; default: this one.")
    ] = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register the types in `schemas` folders at or below the paths, and the types in triggers. A breaking change of a
    registered version is refused. For a new version, the command prints what it breaks and which live functions are
    affected.

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
        fail("no types found; write a JSON Schema to a file such as schemas/order/placed.1.schema.json")
    changes = push_types(Client(env), found)
    if as_json:
        print_json(changes)
    else:
        for change in changes:
            show_change(change)


def push_types(
    client: Client, types: ProjectTypes, *, may_break: bool = True, dry_run: bool = False
) -> list[dict[str, Any]]:
    """Registers all types or none, and returns the changes, as the API answers them.

    If a type is refused, prints the place of each problem and ends the command. `may_break` is the field of
    `event_types.registry.TypeVersion`.
    """
    if not types.types:
        return []
    bodies = [
        {"name": version.name, "version": version.version, "schema": version.schema, "may_break": may_break}
        | ({"policy": version.policy} if version.policy else {})
        for version in types.types
    ]
    path = "/v1/types?dry_run=true" if dry_run else "/v1/types"
    status, answer = client.send("PUT", path, orjson.dumps({"types": bodies}))
    if status >= 300:
        for place in _places(types, answer):
            stderr.print(place, style="red", markup=False, soft_wrap=True)
        stderr.print("nothing was pushed")
        client.refused(status, answer)
    changes: list[dict[str, Any]] = answer["data"]
    return changes


def _places(types: ProjectTypes, answer: Any) -> Iterator[str]:
    """Yields the problems of schemas in an error response, each with file, line and column."""
    for error in (answer.get("errors") or ()) if isinstance(answer, dict) else ():
        parts = error["pointer"].split("/")[1:]
        if parts[:1] == ["types"] and parts[2:3] == ["schema"]:
            yield str(types.placed(types.types[int(parts[1])], Problem(from_pointer(parts[3:]), error["message"])))


def list_types(env: EnvOption = None, as_json: JsonOption = False) -> None:
    """List the event types of a server.

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
    console.print(table if types else "no types; `stepwell types push` registers those in schemas/ folders")


def show(
    name: Annotated[str, _NAME],
    version: Annotated[
        str | None, typer.Option(help="The version whose schema is shown; default: the default version.")
    ] = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a type: policy, versions, and the schema of one version.

    Example: stepwell types show order/placed --version 2026-11-23.1
    """
    value = Client(env).get(f"/v1/types/{in_path(name)}", version=version)
    if as_json:
        print_json(value)
        return
    console.print(f"[bold]{shown(value['name'])}[/]  {shown(value['version'])}  [dim]{shown(value['policy'])}[/]")
    for version_view in value["versions"]:
        note = ", default for events without `v`" if version_view["version"] == value["default"] else ""
        registered_at = local_time(version_view["created_at"])
        console.print(f"  [dim]{shown(version_view['version'])} registered {registered_at}{note}[/]")
    console.print_json(data=value["schema"])


def policy(
    name: Annotated[str, _NAME],
    policy: Annotated[Policy, typer.Argument(help="What happens to invalid events.")],
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set what happens to events that do not match their schema. `reject` refuses them, `warn` accepts and marks them,
    `off` does not check them.

    Example: stepwell types policy order/placed reject
    """
    value = Client(env).patch(f"/v1/types/{in_path(name)}", {"policy": policy.value})
    if as_json:
        print_json(value)
    else:
        console.print(f"{shown(value['name'])}: {shown(value['policy'])}")


def default(
    name: Annotated[str, _NAME],
    version: Annotated[str | None, typer.Argument(help="The version for events without `v`.")] = None,
    newest: Annotated[bool, typer.Option("--newest", help="Always use the newest version.")] = False,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set the default version of a type, which applies to events without `v`. Unless one is set, the newest version is
    the default. A version that is set stays the default when newer versions are registered.

    Example: stepwell types default order/placed 2026-11-23.1
    """
    if (version is None) != newest:
        fail("name a version, or pass --newest, not both", 2)
    value = Client(env).patch(f"/v1/types/{in_path(name)}", {"default": version})
    if as_json:
        print_json(value)
    else:
        note = "also when newer versions are registered" if value["is_chosen"] else "the newest version"
        console.print(
            f"{shown(value['name'])}: {shown(value['default'])} is the default for events without `v`, {note}"
        )


def remove(
    name: Annotated[str, _NAME],
    version: Annotated[str, typer.Argument(help="The version to remove.")],
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove a version of a type. Events with this version in `v` are invalid from then on. Removing the last version
    removes the type, and events of that name have an unknown type.

    Example: stepwell types remove order/placed 2026-11-23.1
    """
    value = Client(env).delete(f"/v1/types/{in_path(name)}", version=version)
    if as_json:
        print_json(value)
        return
    console.print(f"[green]removed[/] {shown(value['name'])} {shown(value['removed'])}")
    if value["default"] is None:
        console.print("this was the last version; events of this name have no type now")
    else:
        console.print(f"{shown(value['default'])} is the default for events without `v`")


def unknown(
    policy: Annotated[
        Policy | None, typer.Argument(help="The policy to set; without it, the current one is shown.")
    ] = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set or show the policy for events whose name has no type. It is `off` at first: such events are accepted.

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
    """Prints what a registration did, or would do. `change` is from the answer of the API."""
    name, version = shown(change["name"]), shown(change["version"])
    if dry_run:
        console.print(f"[yellow]would register[/] type {name} {version}", soft_wrap=True)
    else:
        console.print(f"[green]{shown(change['change'])}[/] {name} {version}  [dim]{shown(change['policy'])}[/]")
    if change["change"] == "created" and change["default"] != change["version"]:
        default = shown(change["default"])
        command = f"stepwell types default {name} {version}"
        console.print(f"  {default} stays the default for events without `v`; to change it: {command}")
    for item in change["breaking"]:
        place = shown(item["pointer"] or "the schema")
        console.print(f"  [yellow]breaks {shown(change['compared_with'])}[/] {place}: {shown(item['message'])}")
    for item in change["affected"]:
        console.print(
            f"  [yellow]affects[/] {shown(item['function_id'])} {shown(item['pointer'])}: {shown(item['message'])}"
        )
