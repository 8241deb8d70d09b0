"""`stepwell functions`: lists, shows, retires, deletes and prunes functions."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from stepwell.cli.remote.client import Client, in_path
from stepwell.cli.remote.environments import EnvOption, aws, resources_of
from stepwell.cli.ui.output import JsonOption, console, fail, print_json
from stepwell.cli.ui.tables import function_lines, function_table, routing_text
from stepwell.terminal import shown

_MOST = 100_000  # functions that are listed

app = typer.Typer(invoke_without_command=True)


@app.callback()
def command(context: typer.Context, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """List live functions with their versions and triggers.

    Example: stepwell functions --json
    """
    if context.invoked_subcommand is not None:
        return
    functions = list(Client(env).pages("/v1/functions", _MOST))
    if as_json:
        print_json(functions)
    elif functions:
        console.print(function_table(functions))
    else:
        console.print("no functions are live; `stepwell init` creates one")


@app.command()
def show(
    function: Annotated[str, typer.Argument(help="The function's id.")],
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a function: versions, triggers, and the definition of each step.

    Example: stepwell functions show welcome
    """
    found = Client(env).get(f"/v1/functions/{in_path(function)}")
    if as_json:
        print_json(found)
    else:
        console.print(function_lines(found))


@app.command()
def retire(
    functions: Annotated[list[str], typer.Argument(help="The functions' ids.")],
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Retire functions of an environment in AWS, so that events do not start them any more. Open runs continue. A push
    makes the functions live again.

    Example: stepwell functions retire welcome --env production
    """
    with aws():
        from stepwell.aws.functions.registry import Registry
        from stepwell.aws.functions.releases import Releases

        resources = resources_of(env)
        registry = Registry(resources)
        live = {row.id for row in registry.functions() if row.live is not None or row.pending}
        for unknown in sorted(set(functions) - live):
            fail(f"{unknown} is not live in {env}; `stepwell functions --env {env}` lists live functions")
        Releases(resources, registry).retire(functions)
    if as_json:
        print_json({"env": env, "functions": functions})
    else:
        for function_id in functions:
            console.print(f"retired {shown(function_id)}")


@app.command()
def delete(
    function: Annotated[str, typer.Argument(help="The function's id.")],
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel the function's open runs.")] = False,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete a function, so that events do not start it any more. Events that were kept during a pause are discarded.
    Open runs continue, and past runs stay visible. A push brings the function back, with the next version number.

    Example: stepwell functions delete welcome --cancel
    """
    routing = Client(env).delete(f"/v1/functions/{in_path(function)}", **({"cancel": "true"} if cancel else {}))
    if as_json:
        print_json(routing)
    else:
        console.print(routing_text(routing))


@app.command()
def prune(
    env: EnvOption = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Remove also resources younger than an hour and logs that have not expired; for use before "
            "`cdk destroy`. Do not push at the same time.",
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be removed; change nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove unused resources from an environment in AWS. A resource is unused if no live version and no open run needs
    it. Resources are Lambdas, roles, task definitions, images, code, values of `.env` files, replaced layers, and log
    groups whose logs have expired.

    Example: stepwell functions prune --env production --dry-run
    """
    with aws():
        from stepwell.aws.deploy.account import Account
        from stepwell.aws.deploy.prune import GRACE_MS, Prune

        grace_ms = 0 if everything else GRACE_MS
        now = time.time_ns() // 1_000_000
        pruning = Prune(resources_of(env), Account(), now, grace_ms=grace_ms, and_logs=everything)
        unneeded = pruning.plan()
        for resource in unneeded:
            if not dry_run:
                pruning.apply(resource)
            if not as_json:
                done = "would remove" if dry_run else "removed"
                console.print(f"{done} {shown(resource.kind)} {shown(resource.name)}", soft_wrap=True)
    if as_json:
        print_json({"env": env, "dry_run": dry_run, "actions": [resource.as_json() for resource in unneeded]})
    elif not unneeded:
        console.print("nothing to remove")
