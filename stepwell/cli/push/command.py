"""`stepwell push`: make functions live in AWS, or on a server on one machine.

The command has many parameters, since Typer makes an option of each.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepwell.cli.push.aws import to_aws
from stepwell.cli.push.server import Project, to_server
from stepwell.cli.remote.environments import EnvOption
from stepwell.cli.ui.output import JsonOption, fail, warn
from stepwell.cli.ui.shares import share
from stepwell.core.routing.versions import NotPossible, Release

if TYPE_CHECKING:
    pass


CanaryOption = Annotated[
    str | None, typer.Option(metavar="SHARE", help="Give what is new this share of new runs, such as 10%.")
]
StickyOption = Annotated[
    str | None, typer.Option(metavar="CEL", help="Equal values get equal versions, as by user.external_id.")
]


def command(
    paths: Annotated[
        list[Path] | None, typer.Argument(exists=True, help="Where to look for functions; default: here.")
    ] = None,
    env: EnvOption = None,
    message: Annotated[str, typer.Option("--message", "-m", help="What is new, for the list of versions.")] = "",
    canary: CanaryOption = None,
    sticky: StickyOption = None,
    guard: Annotated[
        bool, typer.Option("--guard", help="Raise the canary's share, or roll back, by what its runs show.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Hold expressions against the types of their events first.")
    ] = True,
    breaking: Annotated[
        bool, typer.Option("--breaking", help="Let a new type version refuse events that senders send today.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make every function at or below the paths live, in an environment in AWS or on the server at STEPWELL_URL: upload
    what is new, then start new runs with it, all of them or a share. Open runs keep their version. What has not changed
    is left alone; after an error, push again. Refused as a whole are expressions that do not fit the types of their
    events, and type versions that make today's senders wrong.

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
        to_aws(project, env, release, check=check, may_break=breaking, dry_run=dry_run, as_json=as_json)


def _load(paths: list[Path]) -> Project:
    from stepwell.project.event_types import project_types
    from stepwell.project.load import load_all
    from stepwell.project.pushed import left_out
    from stepwell.project.search import Tree
    from stepwell.project.webhooks import find_webhooks

    tree = Tree(paths)
    functions, errors = load_all(tree)
    if errors:
        fail("\n".join(str(error) for error in errors))
    if not functions:
        fail("no definitions found; `stepwell init` makes one")
    for passed_over in tree.passed_over:
        warn(str(passed_over))
    for function in functions:
        for warning in (*function.warnings(), *left_out(function)):
            warn(str(warning))
    types, webhooks = project_types(tree, functions), find_webhooks(tree)
    for warning in (*types.warnings, *webhooks.warnings):
        warn(str(warning))
    if problems := [*types.problems, *webhooks.problems]:
        fail("\n".join(map(str, problems)))
    return Project(functions, types, webhooks.webhooks)
