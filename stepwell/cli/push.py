"""`stepwell push`: make functions live in AWS."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepwell.cli.environments import EnvOption, aws, resources_of
from stepwell.cli.output import JsonOption, console, fail, print_json, stderr, warn

if TYPE_CHECKING:
    from stepwell.aws.deployment import Action
    from stepwell.project.load import LoadedFunction


def command(
    paths: Annotated[
        list[Path] | None, typer.Argument(exists=True, help="Where to look for functions; default: here.")
    ] = None,
    env: EnvOption = None,
    message: Annotated[str, typer.Option("--message", "-m", help="What is new, for the list of versions.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make every function at or below the paths live in an environment: upload what is new, then start new runs with
    it. Open runs keep their version. What has not changed is left alone; after an error, push again.

    Example: stepwell push functions/ --env production --dry-run
    """
    functions = _load(paths or [Path()])
    with aws():
        from stepwell.aws import push, step_lambdas, task_definitions
        from stepwell.aws.account import Account
        from stepwell.aws.deployment import MissingSecrets, Refused, wanted
        from stepwell.aws.images import ImageError
        from stepwell.cli.progress import Bars
        from stepwell.project.code import CodeError

        resources = resources_of(env)
        try:
            its = wanted(functions, resources)
            with Bars(stderr) as bars:
                pushing = push.Push(resources, Account(), bars, message)
                found, actions = pushing.plan(its)
                bars.expect(0 if dry_run else len(actions))
                registered = [] if dry_run else pushing.apply(its, found, actions)
        except Refused as error:
            fail(str(error))
        except (
            CodeError,
            ImageError,
            MissingSecrets,
            push.NoLambda,
            step_lambdas.NoLayer,
            step_lambdas.Taken,
            task_definitions.CannotRegister,
        ) as error:
            fail(str(error))
    versions: dict[str, int | None] = {one.id: None for one in its}
    versions.update((function_id, version.plan.version) for function_id, version in found.live.items())
    versions.update((one.function_id, one.version) for one in registered)
    notes = push.notes(its, found, resources)
    if as_json:
        lines = [action.as_json() for action in actions]
        print_json({"env": env, "dry_run": dry_run, "actions": lines, "functions": versions, "notes": notes})
        return
    _print(actions, dry_run)
    for function_id, version in versions.items():
        live = f"v{version}" if version else "not live"
        console.print(f"[green]{'now' if dry_run else 'live'}[/] {function_id} {live}")
    for note in notes:
        warn(note)


def _load(paths: list[Path]) -> list[LoadedFunction]:
    from stepwell.project.load import load_all

    functions, errors = load_all(paths)
    if errors:
        fail("\n".join(str(error) for error in errors))
    if not functions:
        fail("no definitions found; `stepwell init` makes one")
    for function in functions:
        for warning in function.warnings():
            warn(str(warning))
    return functions


def _print(actions: list[Action], dry_run: bool) -> None:
    if not actions:
        console.print("nothing has changed")
    for action in actions if dry_run else ():
        detail: Any = f"  [dim]{action.detail}[/]" if action.detail else ""
        console.print(f"[yellow]would {action.verb}[/] {action.kind} {action.name}{detail}", soft_wrap=True)
