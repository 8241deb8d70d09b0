"""`stepwell push`: deploys functions to AWS, or to a server on one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stepwell.cli.push.aws import to_aws
from stepwell.cli.push.server import Project, to_server
from stepwell.cli.remote.environments import EnvOption
from stepwell.cli.ui.output import JsonOption, fail, warn
from stepwell.cli.ui.shares import share
from stepwell.core.routing.versions import NotPossible, Release

CanaryOption = Annotated[
    str | None, typer.Option(metavar="SHARE", help="The share of new runs that use the new version, such as 10%.")
]
StickyOption = Annotated[
    str | None,
    typer.Option(
        metavar="CEL", help="An expression such as user.external_id; events with equal values use the same version."
    ),
]


def command(
    paths: Annotated[
        list[Path] | None, typer.Argument(exists=True, help="Folders to search for functions; default: this one.")
    ] = None,
    env: EnvOption = None,
    message: Annotated[
        str, typer.Option("--message", "-m", help="A description of the change, for the list of versions.")
    ] = "",
    canary: CanaryOption = None,
    sticky: StickyOption = None,
    guard: Annotated[
        bool,
        typer.Option("--guard", help="Raise the canary's share, or roll back, according to the results of runs."),
    ] = False,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Check expressions against the types of their events first.")
    ] = True,
    breaking: Annotated[
        bool, typer.Option("--breaking", help="Allow a new type version to reject events that senders send today.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done; change nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Deploy every function at or below the paths to an environment in AWS, or to the server at STEPWELL_URL. New runs
    use the new version, all of them or a share; open runs keep their version. Functions that have not changed are
    skipped. After an error, push again. Nothing is pushed if an expression does not fit the type of an event, or if a
    new type version would reject events that senders send today.

    Example: stepwell push functions/ --env production --canary 10% --sticky user.external_id --guard
    """
    weight = None if canary is None else share(canary)
    release = Release(message=message, weight=weight, sticky=sticky, guarded=guard)
    try:
        release.check()
    except NotPossible as reason:
        fail(str(reason), 2)
    project = _load(paths or [Path()])
    if env is None:
        to_server(project, release, check=check, may_break=breaking, dry_run=dry_run, as_json=as_json)
    else:
        for source in project.sources:
            warn(f"{source.file}: sources are not pushed to AWS; there, stepwell.cdk.Source reads queues")
        to_aws(project, env, release, check=check, may_break=breaking, dry_run=dry_run, as_json=as_json)


def _load(paths: list[Path]) -> Project:
    from stepwell.project.event_types import project_types
    from stepwell.project.load import load_all
    from stepwell.project.pushed import not_pushed
    from stepwell.project.search import Tree
    from stepwell.project.sources import find_sources
    from stepwell.project.webhooks import find_webhooks

    tree = Tree(paths)
    functions, errors = load_all(tree)
    if errors:
        fail("\n".join(str(error) for error in errors))
    if not functions:
        fail("no definitions found; `stepwell init` creates one")
    for passed_over in tree.passed_over:
        warn(str(passed_over))
    for function in functions:
        for warning in (*function.warnings(), *not_pushed(function)):
            warn(str(warning))
    types, webhooks, sources = project_types(tree, functions), find_webhooks(tree), find_sources(tree)
    for warning in (*types.warnings, *webhooks.warnings, *sources.warnings):
        warn(str(warning))
    if problems := [*types.problems, *webhooks.problems, *sources.problems]:
        fail("\n".join(map(str, problems)))
    return Project(functions, types, webhooks.rules, sources.rules)
