"""`stepwell functions`: what is live, and taking away what is not."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from stepwell.cli.remote.client import Client, in_path
from stepwell.cli.remote.environments import EnvOption, aws, resources_of
from stepwell.cli.ui.output import JsonOption, console, fail, print_json
from stepwell.cli.ui.tables import function_lines, function_table, routing_text
from stepwell.terminal import shown

app = typer.Typer(invoke_without_command=True)


@app.callback()
def command(context: typer.Context, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """List the functions that are live, with their versions and triggers.

    Example: stepwell functions --json
    """
    if context.invoked_subcommand is not None:
        return
    functions = Client(env).get("/v1/functions")["data"]
    if as_json:
        print_json(functions)
    elif functions:
        console.print(function_table(functions))
    else:
        console.print("no functions are live; `stepwell init` makes one")


@app.command()
def show(
    function: Annotated[str, typer.Argument(help="The function's id.")],
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a function: its versions, what starts it, and its steps as they are defined.

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
    """Take functions of an environment out of service: no event starts them any more. Their open runs go on, and a push
    makes them live again.

    Example: stepwell functions retire welcome --env production
    """
    with aws():
        from stepwell.aws.functions.registry import Registry
        from stepwell.aws.functions.releases import Releases

        resources = resources_of(env)
        registry = Registry(resources)
        live = {row.id for row in registry.functions() if row.live is not None or row.pending}
        for unknown in sorted(set(functions) - live):
            fail(f"{unknown} is not live in {env}; `stepwell functions --env {env}` lists those that are")
        Releases(resources, registry).retire(functions)
    if as_json:
        print_json({"env": env, "functions": functions})
    else:
        for function_id in functions:
            console.print(f"retired {shown(function_id)}")


@app.command()
def delete(
    function: Annotated[str, typer.Argument(help="The function's id.")],
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel its open runs.")] = False,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete a function: no event starts it any more, and events that were kept for it are forgotten. Its open runs go
    on, and what ran stays to be seen. A push brings it back, with the next number.

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
            help="Also what is younger than an hour, and logs that have not expired: before `cdk destroy`. Nobody may "
            "push meanwhile.",
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be removed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove from an environment what pushes made, or stacks left, and no live or running version needs: Lambdas,
    roles, task definitions, images, code, values of `.env` files, replaced layers, and log groups once their logs have
    expired.

    Example: stepwell functions prune --env production --dry-run
    """
    with aws():
        from stepwell.aws.deploy.account import Account
        from stepwell.aws.deploy.prune import GRACE_MS, Prune

        grace_ms = 0 if everything else GRACE_MS
        now = time.time_ns() // 1_000_000
        pruning = Prune(resources_of(env), Account(), now, grace_ms=grace_ms, and_logs=everything)
        unneeded = pruning.plan()
        for what in unneeded:
            if not dry_run:
                pruning.apply(what)
            if not as_json:
                console.print(
                    f"{'would remove' if dry_run else 'removed'} {shown(what.kind)} {shown(what.name)}", soft_wrap=True
                )
    if as_json:
        print_json({"env": env, "dry_run": dry_run, "actions": [what.as_json() for what in unneeded]})
    elif not unneeded:
        console.print("there is nothing to remove")
