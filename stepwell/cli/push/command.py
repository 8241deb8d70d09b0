"""`stepwell push`: make functions live in AWS, or on a server on one machine.

The command has many parameters, since Typer makes an option of each.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from stepwell.cli.push.server import Project, refuse_wrong, to_server
from stepwell.cli.push.webhooks import put_webhooks, show_webhooks
from stepwell.cli.remote.environments import EnvOption, aws, resources_of
from stepwell.cli.types.server import show_change
from stepwell.cli.ui.output import JsonOption, console, fail, print_json, stderr, warn
from stepwell.cli.ui.shares import share
from stepwell.core.routing.versions import NotPossible, Release
from stepwell.terminal import shown

if TYPE_CHECKING:
    from stepwell.api.event_type_views import TypeChangeView
    from stepwell.aws.deploy.plan import Action
    from stepwell.aws.functions.event_types import TypeStore
    from stepwell.aws.resources import Resources
    from stepwell.project.event_types import ProjectTypes


def command(
    paths: Annotated[
        list[Path] | None, typer.Argument(exists=True, help="Where to look for functions; default: here.")
    ] = None,
    env: EnvOption = None,
    message: Annotated[str, typer.Option("--message", "-m", help="What is new, for the list of versions.")] = "",
    canary: Annotated[
        str | None, typer.Option(metavar="SHARE", help="Give what is new this share of new runs, such as 10%.")
    ] = None,
    sticky: Annotated[
        str | None, typer.Option(metavar="CEL", help="Equal values get equal versions, as by user.external_id.")
    ] = None,
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
        types = [replace(one, may_break=breaking) for one in project.types.types]
        project = replace(project, types=replace(project.types, types=types))
        _to_aws(project, env, release, check=check, dry_run=dry_run, as_json=as_json)


def _to_aws(project: Project, env: str, release: Release, *, check: bool, dry_run: bool, as_json: bool) -> None:
    functions, types = project.functions, project.types
    with aws():
        from stepwell.aws.deploy import push, step_lambdas, task_definitions
        from stepwell.aws.deploy.account import Account
        from stepwell.aws.deploy.activity import NotUsable
        from stepwell.aws.deploy.images import ImageError
        from stepwell.aws.deploy.plan import CannotPush, MissingSecrets, wanted
        from stepwell.aws.functions.event_types import TypeStore
        from stepwell.aws.functions.webhooks import AwsWebhooks
        from stepwell.cli.ui.progress import Bars
        from stepwell.project.code import CodeError
        from stepwell.project.expression_checks import check_expressions

        resources = resources_of(env)
        store = TypeStore(resources)
        if check:
            refuse_wrong(check_expressions(functions, types, store))
        previews = _register_types(store, types, resources, dry_run=True)
        try:
            items = wanted(functions, resources)
            with Bars(stderr) as bars:
                pushing = push.Push(resources, Account(), bars, release.message, release)
                found, actions = pushing.plan(items)
                notes = push.notes(items, found, resources, actions)
                if not as_json:
                    for note in notes:  # first: without what is to be granted, the push may end here
                        warn(note)
                bars.expect(0 if dry_run else len(actions))
                changes = [] if dry_run else _register_types(store, types, resources)
                registered = [] if dry_run else pushing.apply(items, found, actions)
                webhooks = put_webhooks(AwsWebhooks(resources), project.webhooks, dry_run)
        except CannotPush as error:
            fail(str(error))
        except (
            CodeError,
            ImageError,
            MissingSecrets,
            NotPossible,
            NotUsable,
            push.NoLambda,
            step_lambdas.NoLayer,
            step_lambdas.Taken,
            task_definitions.CannotRegister,
        ) as error:
            fail(str(error))
    versions: dict[str, int | None] = {one.id: None for one in items}
    versions.update((function_id, version.plan.version) for function_id, version in found.live.items())
    versions.update((one.function_id, one.version) for one in registered)
    if as_json:
        lines = [action.as_json() for action in actions]
        content = {"env": env, "dry_run": dry_run, "actions": lines, "functions": versions, "notes": notes}
        print_json({**content, "types": previews if dry_run else changes, "webhooks": webhooks})
        return
    for change in previews if dry_run else changes:
        if change["change"] != "unchanged":
            show_change(change, dry_run)
    show_webhooks(webhooks, dry_run)
    _print(actions, dry_run)
    for function_id, version in versions.items():
        live = f"v{version}" if version else "not live"
        is_canary = release.weight is not None and any(one.function_id == function_id for one in registered)
        word = "now" if dry_run else f"canary {release.weight:.0%}" if is_canary else "live"
        console.print(f"[green]{word}[/] {shown(function_id)} {live}")


def _register_types(
    store: TypeStore, types: ProjectTypes, resources: Resources, *, dry_run: bool = False
) -> list[TypeChangeView]:
    """Register them, all or none, and say what they mean for the functions that are live now. Ends the command if one
    is refused, with the places of what is wrong."""
    from stepwell.api.event_type_views import change_view
    from stepwell.aws.functions.registry import Registry
    from stepwell.event_types.registry import TypeRefused

    try:
        changes = store.register_types(types.types, dry_run=dry_run)
    except TypeRefused as refused:
        if (version := refused.version) is not None:
            for problem in refused.problems:
                stderr.print(str(types.placed(version, problem)), style="red", markup=False, soft_wrap=True)
        stderr.print("nothing was pushed")
        fail(str(refused))
    new = any(change.what != "unchanged" for change in changes)
    registry = Registry(resources)
    rows = [row for row in registry.functions() if row.live is not None] if new else []
    live = [orjson.loads(registry.version(row.id, row.live).definition) for row in rows if row.live is not None]
    return [change_view(change, version.schema, live) for change, version in zip(changes, types.types, strict=True)]


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


def _print(actions: list[Action], dry_run: bool) -> None:
    if not actions:
        console.print("nothing has changed")
    for action in actions if dry_run else ():
        detail: Any = f"  [dim]{shown(action.detail)}[/]" if action.detail else ""
        console.print(
            f"[yellow]would {shown(action.verb)}[/] {shown(action.kind)} {shown(action.name)}{detail}", soft_wrap=True
        )
