"""`stepwell types check`: functions against the types of their events, and types against the version before."""

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
        bool, typer.Option("--registry", help="Compare with the types of the server, or of --env, too.")
    ] = False,
    allow_breaking: Annotated[
        bool, typer.Option("--allow-breaking", help="Breaking changes of a new version are warnings.")
    ] = False,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every expression of the functions by the schemas of their events, and the newest version of each event by
    the version before it. Exit code 1 if something is wrong.

    Example: stepwell types check functions/
    """
    from stepwell.project.event_types import project_types
    from stepwell.project.expression_checks import check_expressions
    from stepwell.project.load import load_all
    from stepwell.project.schemas import find_types

    where = paths or [Path()]
    loaded, errors = load_all(where)
    types = find_types(where)
    problems, warnings = [p for error in errors for p in error.problems], [*types.warnings]
    problems += types.problems
    checked = check_expressions(loaded, project_types(where, loaded))
    problems, warnings = [*problems, *checked.errors], [*warnings, *checked.warnings]
    client = Client(env) if registry or env is not None else None
    for comparison in _comparisons(types.by_name(), client):
        found = list(comparison.problems(loaded))
        (warnings if allow_breaking and not comparison.is_same_version else problems).extend(found)
    if as_json:
        found_types = [{"name": found.name, "version": found.v, "file": str(found.file)} for found in types.types]
        ids, views = [function.definition.id for function in loaded], (_views(problems), _views(warnings))
        print_json({"functions": ids, "types": found_types, "errors": views[0], "warnings": views[1]})
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
        stderr.print("no functions and no schemas/ folders found here")


@dataclass(frozen=True, slots=True)
class _Comparison:
    """A type's newest version on disk, and what it is compared with."""

    newest: EventType
    before: Schema
    before_version: str

    @property
    def is_same_version(self) -> bool:
        return self.before_version == self.newest.v

    def problems(self, functions: list[LoadedFunction]) -> Iterator[PlacedProblem]:
        """Each breaking change, with the functions that it affects."""
        from stepwell.event_types.compatibility import compare
        from stepwell.event_types.impact import affected

        event_type = self.newest
        breaking = compare(self.before, event_type.schema).breaking
        if not breaking:
            return
        touched = affected((f.normalised() for f in functions), event_type.name, self.before, event_type.schema)
        ids = list(dict.fromkeys(function_id for function_id, _ in touched))
        who = f"; affects {', '.join(ids)}" if ids else ""
        cure = "; give it a new version" if self.is_same_version else ""
        for one in breaking:
            what = f"{event_type.name} {event_type.v} breaks {self.before_version}: {one.message}{who}{cure}"
            yield event_type.placed(one.pointer, what)


def _comparisons(types: Mapping[str, list[EventType]], client: Client | None) -> Iterator[_Comparison]:
    """For each type: its newest version and the one before it on disk, or else on the server; and each version on disk
    with what the server has under the same name."""
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
