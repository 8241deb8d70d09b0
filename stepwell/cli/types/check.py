"""`stepwell types check`: checks functions against the types of their events, and types against earlier versions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepwell.cli.remote.client import Client
from stepwell.cli.remote.environments import EnvOption
from stepwell.cli.types import registered
from stepwell.cli.ui.output import JsonOption, console, print_json, stderr
from stepwell.terminal import shown

if TYPE_CHECKING:
    from stepwell.event_types.schema import Schema
    from stepwell.project.load import LoadedFunction
    from stepwell.project.schemas import EventType
    from stepwell.project.source import PlacedProblem


def command(
    paths: Annotated[list[Path] | None, typer.Argument(help="Folders with functions and schemas/ folders.")] = None,
    registry: Annotated[
        bool, typer.Option("--registry", help="Compare also with the registered types of the server, or of --env.")
    ] = False,
    allow_breaking: Annotated[
        bool, typer.Option("--allow-breaking", help="Print breaking changes of a new version as warnings, not errors.")
    ] = False,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the expressions of functions against the schemas of their events, and the newest version of each event type
    against the version before it. The exit code is 1 if something is wrong.

    Example: stepwell types check functions/
    """
    from stepwell.project.event_types import project_types
    from stepwell.project.expression_checks import check_expressions
    from stepwell.project.load import load_all
    from stepwell.project.schemas import find_types

    folders = paths or [Path()]
    loaded, errors = load_all(folders)
    types = find_types(folders)
    problems, warnings = [p for error in errors for p in error.problems], [*types.warnings]
    problems += types.problems
    checked = check_expressions(loaded, project_types(folders, loaded))
    problems, warnings = [*problems, *checked.errors], [*warnings, *checked.warnings]
    client = Client(env) if registry or env is not None else None
    for comparison in _comparisons(types.by_name(), client):
        breaking = list(comparison.problems(loaded))
        (warnings if allow_breaking and not comparison.is_same_version else problems).extend(breaking)
    if as_json:
        type_views = [{"name": found.name, "version": found.v, "file": str(found.file)} for found in types.types]
        ids = [function.definition.id for function in loaded]
        print_json({"functions": ids, "types": type_views, "errors": _views(problems), "warnings": _views(warnings)})
    else:
        _show(loaded, types.by_name(), problems, warnings)
    if problems:
        raise typer.Exit(1)


def _show(
    loaded: list[LoadedFunction],
    types: Mapping[str, list[EventType]],
    problems: list[PlacedProblem],
    warnings: list[PlacedProblem],
) -> None:
    wrong = {problem.file for problem in problems}
    for function in loaded:
        if function.file not in wrong:
            console.print(
                f"[green]ok[/]  {shown(function.definition.id)}  [dim]{shown(function.file)}[/]", soft_wrap=True
            )
    for versions in types.values():
        newest = versions[-1]
        if newest.file not in wrong:
            console.print(
                f"[green]ok[/]  {shown(newest.name)} {shown(newest.v)}  [dim]{shown(newest.file)}[/]", soft_wrap=True
            )
    for warning in warnings:
        stderr.print(f"{warning}", style="yellow", markup=False, soft_wrap=True)
    for problem in problems:
        stderr.print(f"{problem}", style="red", markup=False, soft_wrap=True)
    if not loaded and not types and not problems:
        stderr.print("no functions and no schemas/ folders found")


@dataclass(frozen=True, slots=True)
class _Comparison:
    """A type version on disk, and the version to compare it with."""

    newest: EventType
    before: Schema
    before_version: str

    @property
    def is_same_version(self) -> bool:
        return self.before_version == self.newest.v

    def problems(self, functions: list[LoadedFunction]) -> Iterator[PlacedProblem]:
        """Yields each breaking change, with the functions that it affects."""
        from stepwell.event_types.compatibility import compare
        from stepwell.event_types.impact import affected

        event_type = self.newest
        breaking = compare(self.before, event_type.schema).breaking
        if not breaking:
            return
        impacts = affected((f.normalised() for f in functions), event_type.name, self.before, event_type.schema)
        ids = list(dict.fromkeys(function_id for function_id, _ in impacts))
        functions_text = f"; affects {', '.join(ids)}" if ids else ""
        advice = "; give the schema a new version" if self.is_same_version else ""
        subject = f"{event_type.name} {event_type.v} breaks {self.before_version}"
        for change in breaking:
            yield event_type.placed(change.pointer, f"{subject}: {change.message}{functions_text}{advice}")


def _comparisons(types: Mapping[str, list[EventType]], client: Client | None) -> Iterator[_Comparison]:
    """Yields the comparisons to make for each type.

    The newest version on disk is compared with the version before it, on disk or else on the server. Each version on
    disk is also compared with the same version on the server.
    """
    known = registered.versions(client) if client is not None else {}
    for name, versions in types.items():
        newest = versions[-1]
        if len(versions) > 1:
            yield _Comparison(newest, versions[-2].schema, versions[-2].v)
        elif client is not None and known.get(name) and newest.v not in known[name]:
            yield _Comparison(newest, registered.schema(client, name), known[name][-1])
        for version in versions:
            if client is not None and version.v in known.get(name, ()):
                yield _Comparison(version, registered.schema(client, name, version.v), version.v)


def _views(problems: Iterable[PlacedProblem]) -> list[dict[str, Any]]:
    from stepwell.event_types.schema import json_pointer

    return [
        {"file": str(p.file), "line": p.line, "column": p.column, "pointer": json_pointer(p.pointer),
         "message": p.message}
        for p in problems
    ]  # fmt: skip
