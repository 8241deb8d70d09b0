"""Pushes to an environment in AWS, and prints what was changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from stepwell.cli.push.rules import put_rules
from stepwell.cli.push.server import Project, refuse_wrong
from stepwell.cli.push.webhooks import show_webhooks
from stepwell.cli.remote.environments import aws, resources_of
from stepwell.cli.types.server import show_change
from stepwell.cli.ui.output import console, fail, print_json, stderr, warn
from stepwell.core.routing.versions import NotPossible, Release
from stepwell.terminal import shown

if TYPE_CHECKING:
    from stepwell.api.views.event_types import TypeChangeView
    from stepwell.aws.deploy.actions import Action
    from stepwell.aws.functions.event_types import TypeStore
    from stepwell.aws.resources import Resources
    from stepwell.project.event_types import ProjectTypes


@dataclass(frozen=True, slots=True)
class _Push:
    """What a push did, or would do.

    `versions` has the live version of each function, `new` the functions that this push gave a new version.
    """

    actions: list[Action]
    notes: list[str]
    types: list[TypeChangeView]
    webhooks: list[dict[str, Any]]
    versions: dict[str, int | None]
    new: set[str]


def to_aws(
    project: Project, env: str, release: Release, *, check: bool, may_break: bool, dry_run: bool, as_json: bool
) -> None:
    """Pushes a project to an environment, and prints the changes. Ends the command if the push is refused.

    `may_break`: new type versions may reject events that senders send today.
    """
    types = [replace(version, may_break=may_break) for version in project.types.types]
    project = replace(project, types=replace(project.types, types=types))
    with aws(), _refusals():
        done = _push(project, resources_of(env), release, check=check, dry_run=dry_run, quiet=as_json)
    if as_json:
        lines = [action.as_json() for action in done.actions]
        content = {"env": env, "dry_run": dry_run, "actions": lines, "functions": done.versions, "notes": done.notes}
        print_json({**content, "types": done.types, "webhooks": done.webhooks})
    else:
        _print(done, release, dry_run)


def _push(
    project: Project, resources: Resources, release: Release, *, check: bool, dry_run: bool, quiet: bool
) -> _Push:
    from stepwell.aws.deploy import push
    from stepwell.aws.deploy.account import Account
    from stepwell.aws.deploy.wanted import wanted
    from stepwell.aws.functions.event_types import TypeStore
    from stepwell.aws.functions.webhooks import AwsWebhooks
    from stepwell.cli.ui.progress import Bars
    from stepwell.project.expression_checks import check_expressions

    functions, types, store = project.functions, project.types, TypeStore(resources)
    if check:
        refuse_wrong(check_expressions(functions, types, store))
    changes = _register_types(store, types, resources, dry_run=True)
    items = wanted(functions, resources)
    with Bars(stderr) as bars:
        pushing = push.Push(resources, Account(), bars, release.message, release)
        found, actions = pushing.plan(items)
        notes = push.notes(items, found, resources, actions)
        for note in () if quiet else notes:  # printed first: the push may fail if a permission is missing
            warn(note)
        bars.expect(0 if dry_run else len(actions))
        if not dry_run:
            changes = _register_types(store, types, resources)
        registered = [] if dry_run else pushing.apply(items, found, actions)
        hooks = AwsWebhooks(resources)
        webhooks = put_rules(hooks.rules, hooks.put_webhook, project.webhooks, dry_run)
    versions: dict[str, int | None] = {item.id: None for item in items}
    versions |= {function_id: version.plan.version for function_id, version in found.live.items()}
    versions |= {version.function_id: version.version for version in registered}
    return _Push(actions, notes, changes, webhooks, versions, {version.function_id for version in registered})


@contextmanager
def _refusals() -> Iterator[None]:
    """Ends the command with the message of an error that stopped the push."""
    from stepwell.aws.deploy import push, step_lambdas, task_definitions
    from stepwell.aws.deploy.activity import NotUsable
    from stepwell.aws.deploy.images import ImageError
    from stepwell.aws.deploy.plan import MissingSecrets
    from stepwell.aws.deploy.wanted import CannotPush
    from stepwell.project.code import CodeError

    refusals = (
        *(CannotPush, CodeError, ImageError, MissingSecrets, NotPossible, NotUsable, push.NoLambda),
        *(step_lambdas.NoLayer, step_lambdas.DestinationInUse, task_definitions.CannotRegister),
    )
    try:
        yield
    except refusals as error:
        fail(str(error))


def _register_types(
    store: TypeStore, types: ProjectTypes, resources: Resources, *, dry_run: bool = False
) -> list[TypeChangeView]:
    """Registers all types or none, and returns the changes with the live functions that they affect.

    If a type is refused, prints the place of each problem and ends the command.
    """
    from stepwell.api.views.event_types import change_view
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


def _print(done: _Push, release: Release, dry_run: bool) -> None:
    for change in done.types:
        if change["change"] != "unchanged":
            show_change(change, dry_run)
    show_webhooks(done.webhooks, dry_run)
    _print_actions(done.actions, dry_run)
    for function_id, version in done.versions.items():
        live = f"v{version}" if version else "not live"
        is_canary = release.weight is not None and function_id in done.new
        state = "now" if dry_run else f"canary {release.weight:.0%}" if is_canary else "live"
        console.print(f"[green]{state}[/] {shown(function_id)} {live}")


def _print_actions(actions: list[Action], dry_run: bool) -> None:
    if not actions:
        console.print("nothing has changed")
    for action in actions if dry_run else ():
        detail: Any = f"  [dim]{shown(action.detail)}[/]" if action.detail else ""
        console.print(
            f"[yellow]would {shown(action.verb)}[/] {shown(action.kind)} {shown(action.name)}{detail}", soft_wrap=True
        )
