"""Pushes to the server at STEPWELL_URL. Functions whose version is live already are not sent again."""

from __future__ import annotations

import getpass
import socket
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stepwell.cli.push.rules import put_rules
from stepwell.cli.push.sources import ServerSources, show_sources
from stepwell.cli.push.webhooks import ServerWebhooks, show_webhooks
from stepwell.cli.remote.client import Client, in_path
from stepwell.cli.types.registered import schema
from stepwell.cli.types.server import push_types, show_change
from stepwell.cli.ui.output import console, fail, print_json, warn
from stepwell.cli.ui.tables import routing_text
from stepwell.core.compile import version_hash
from stepwell.core.routing.versions import Release
from stepwell.event_types.registry import Policy, TypeDetail
from stepwell.project.expression_checks import CheckedExpressions, check_expressions
from stepwell.terminal import shown

if TYPE_CHECKING:
    from stepwell.project.event_types import ProjectTypes
    from stepwell.project.load import LoadedFunction
    from stepwell.project.rule_files import RuleFile


@dataclass(frozen=True, slots=True)
class Project:
    """The functions, event types, webhooks and sources of a push."""

    functions: list[LoadedFunction]
    types: ProjectTypes
    webhooks: list[RuleFile]
    sources: list[RuleFile]


class ServerTypes:
    """The types that are registered on a server. Implements `project.expression_checks.RegisteredTypes`; reads the list
    once."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[str, TypeDetail] | None = None

    def read_type(self, name: str) -> TypeDetail | None:
        if self._known is None:
            self._known = {item["name"]: _detail(item) for item in self._client.get("/v1/types")["data"]}
        return self._known.get(name)

    def read_schema(self, name: str, version: str) -> Any:
        return schema(self._client, name, version)


def _detail(value: Any) -> TypeDetail:
    chosen = value["default"] if value["is_chosen"] else None
    return TypeDetail(value["name"], Policy(value["policy"]), [(v["version"], 0) for v in value["versions"]], chosen)


def to_server(
    project: Project, release: Release, *, check: bool, may_break: bool, dry_run: bool, as_json: bool
) -> None:
    """Pushes the types, all or none, then each function that is new or changed, then the webhooks and sources.

    Ends the command at the first one that the server refuses. `check`: check expressions against types first.
    """
    from stepwell.project.pushed import for_push

    client = Client()
    if check:
        refuse_wrong(check_expressions(project.functions, project.types, ServerTypes(client)))
    changes = push_types(client, project.types, may_break=may_break, dry_run=dry_run)
    for change in changes:
        if change["change"] != "unchanged" and not as_json:
            show_change(change, dry_run)
    known = {page["id"] for page in client.pages("/v1/functions", 100_000)}
    pushed: list[dict[str, Any]] = []
    for function in map(for_push, project.functions):
        function_id = function.definition.id
        live = _live(client, function) if function_id in known else None
        if live is not None:
            fields: dict[str, Any] = {"function_id": function_id, "version": live, "is_new": False}
            line = f"[dim]unchanged[/] {shown(function_id)} v{live}"
        elif dry_run:
            fields = {"function_id": function_id, "version": None, "is_new": True}
            line = f"[yellow]would push[/] {shown(function_id)}"
        else:
            fields = _send(client, function, release)
            line = f"[green]pushed[/] v{shown(fields['version'])}"
        pushed.append(fields)
        if not as_json:
            console.print(line, *([routing_text(fields["routing"])] if "routing" in fields else []), soft_wrap=True)
    hooks, of_sources = ServerWebhooks(client), ServerSources(client)
    webhooks = put_rules(hooks.rules, hooks.put, project.webhooks, dry_run)
    sources = put_rules(of_sources.rules, of_sources.put, project.sources, dry_run)
    if as_json:
        content = {"url": client.url, "dry_run": dry_run, "functions": pushed, "types": changes}
        print_json({**content, "webhooks": webhooks, "sources": sources})
    else:
        show_webhooks(webhooks, dry_run)
        show_sources(sources, dry_run)


def refuse_wrong(checked: CheckedExpressions) -> None:
    """Prints warnings of the expression check, and ends the command if an expression is wrong."""
    for warning in checked.warnings:
        warn(str(warning))
    if checked.errors:
        lines = "\n".join(map(str, checked.errors))
        fail(f"{lines}\nnothing was pushed; correct the expression or the type, or push with --no-check")


def _live(client: Client, function: LoadedFunction) -> int | None:
    """The number of the live version if it equals the function, else None.

    None also if a step has a `.env` file: such values are not part of the version's hash, so they are always pushed.
    """
    if any((code.folder / ".env").is_file() for code in function.steps.values()):
        return None
    code = {step_id: step_code.hash for step_id, step_code in function.steps.items()}
    wanted = version_hash(function.normalised(), code)
    path = f"/v1/functions/{in_path(function.definition.id)}"
    live = client.get(f"{path}/routing")["live"]
    versions = client.get(f"{path}/versions")["data"]
    return next(
        (version["version"] for version in versions if version["version"] == live and version["hash"] == wanted), None
    )


def _send(client: Client, function: LoadedFunction, release: Release) -> dict[str, Any]:
    from stepwell.project.archive import write_archive
    from stepwell.project.code import CodeError

    query: dict[str, Any] = {"author": _author(), "message": release.message}
    if release.weight is not None:
        query |= {"canary": release.weight, "guard": str(release.guarded).lower()}
    if release.sticky is not None:
        query["sticky"] = release.sticky
    with tempfile.TemporaryFile() as file:
        try:
            write_archive(function, file)
        except (CodeError, OSError) as error:
            fail(f"{function.file}: {error}")
        file.seek(0)
        answer: dict[str, Any] = client.upload("/v1/functions", file, "application/zip", query)
    return answer


def _author() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # some containers run as a user without a name
        return socket.gethostname()
