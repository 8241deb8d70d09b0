"""`stepwell validate`: checks definitions, webhook rules and sources without running anything."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from stepwell.cli.ui.output import JsonOption, console, print_json, stderr
from stepwell.project.event_types import project_types, unannounced_breaks
from stepwell.project.expression_checks import check_expressions
from stepwell.project.extras import missing_for_functions, missing_for_sources
from stepwell.project.inngest import is_settings
from stepwell.project.load import LoadedFunction, PlacedProblem, load_all
from stepwell.project.rule_files import RuleFile
from stepwell.project.search import Tree
from stepwell.project.sources import find_sources
from stepwell.project.webhooks import find_webhooks
from stepwell.terminal import shown


def command(
    paths: Annotated[list[Path] | None, typer.Argument(help="Definitions, or folders to search for them.")] = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Check expressions against the types of their events.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Check every definition at or below the paths. This includes fields, steps, edges, expressions and code, and also
    the event types in schemas folders, the rules in webhooks folders and the sources in sources folders. The exit code
    is 1 if something is wrong.

    Example: stepwell validate functions/
    """
    tree = Tree(paths or [Path()])
    loaded, errors = load_all(tree)
    webhooks, sources, types = find_webhooks(tree), find_sources(tree), project_types(tree, loaded)
    problems = [*(problem for error in errors for problem in error.problems), *types.problems, *webhooks.problems]
    problems += sources.problems
    warnings = [*tree.passed_over, *(warning for function in loaded for warning in function.warnings())]
    warnings += [*types.warnings, *webhooks.warnings, *sources.warnings]
    warnings += [*missing_for_functions(loaded), *missing_for_sources(sources.rules)]
    if check and types.types:
        checked = check_expressions(loaded, types)
        problems += checked.errors
        warnings += [*checked.warnings, *unannounced_breaks(types)]
    has_settings = any(is_settings(problem.file) for problem in tree.passed_over)
    is_empty = not (loaded or webhooks.rules or sources.rules or has_settings)
    if as_json:
        ids, names = [function.definition.id for function in loaded], [webhook.name for webhook in webhooks.rules]
        found = {"functions": ids, "webhooks": names, "sources": [source.name for source in sources.rules]}
        print_json({**found, "errors": _views(problems), "warnings": _views(warnings)})
    else:
        wrong = {problem.file for problem in problems}
        _print_valid([function for function in loaded if function.file not in wrong], webhooks.rules)
        for source in sources.rules:
            console.print(f"[green]ok[/]  source {shown(source.name)}  [dim]{shown(source.file)}[/]")
        for warning in warnings:
            stderr.print(f"{warning}", style="yellow", markup=False, soft_wrap=True)
        for problem in problems:
            stderr.print(f"{problem}", style="red", markup=False, soft_wrap=True)
        if is_empty and not problems:
            stderr.print("no definitions found; `stepwell init` creates one")
    if problems or is_empty:
        raise typer.Exit(1)


def _print_valid(functions: Iterable[LoadedFunction], webhooks: Iterable[RuleFile]) -> None:
    for function in functions:
        console.print(f"[green]ok[/]  {shown(function.definition.id)}  [dim]{shown(function.file)}[/]")
    for webhook in webhooks:
        console.print(f"[green]ok[/]  webhook {shown(webhook.name)}  [dim]{shown(webhook.file)}[/]")


def _views(problems: list[PlacedProblem]) -> list[dict[str, object]]:
    return [
        {"file": str(p.file), "line": p.line, "column": p.column, "pointer": "".join(f"/{part}" for part in p.pointer),
         "message": p.message}
        for p in problems
    ]  # fmt: skip
