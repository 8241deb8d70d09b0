"""`stepwell approvals`, `approve` and `decline`: what waits for people, and their decision.

One rule: a decision is made with the link that everybody gets, so that the server is asked for it first.
"""

from __future__ import annotations

import getpass
from typing import Annotated, Any

import typer

from stepwell.cli.remote.client import Client, in_path
from stepwell.cli.remote.environments import EnvOption
from stepwell.cli.ui.output import JsonOption, console, fail, print_json
from stepwell.cli.ui.tables import approval_table, short
from stepwell.terminal import styled

RunArgument = Annotated[str, typer.Argument(help="The run's id.")]
StepArgument = Annotated[str | None, typer.Argument(help="The step, if the run asks several things.")]
CommentOption = Annotated[str | None, typer.Option("--comment", "-c", help="Why.")]
ByOption = Annotated[str | None, typer.Option(help="Who decides; default: your name on this machine.")]


def approvals(
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the approvals that are open, those of the newest runs first.

    Example: stepwell approvals
    """
    found = list(Client(env).pages("/v1/approvals", limit))
    if as_json:
        print_json(found)
    elif found:
        console.print(approval_table(found))
    else:
        console.print("nothing waits for people")


def approve(
    run: RunArgument,
    step: StepArgument = None,
    comment: CommentOption = None,
    by: ByOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Approve what a run asks. The first decision counts.

    Example: stepwell approve 7w2kq4m1 --comment "as agreed"
    """
    _decide("approve_url", run, step, comment, by, env, as_json)


def decline(
    run: RunArgument,
    step: StepArgument = None,
    comment: CommentOption = None,
    by: ByOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Decline what a run asks. The first decision counts.

    Example: stepwell decline 7w2kq4m1 --comment "too dear"
    """
    _decide("decline_url", run, step, comment, by, env, as_json)


def _decide(
    link: str, run_id: str, step: str | None, comment: str | None, by: str | None, env: str | None, as_json: bool
) -> None:
    client = Client(env)
    steps = client.get(f"/v1/runs/{in_path(run_id)}")["steps"]
    token = _asked(run_id, steps, step)[link].rpartition("/")[2]
    answer = client.post(f"/v1/approvals/{in_path(token)}", {"comment": comment, "by": by or own_name()})
    if as_json:
        print_json(answer)
    else:
        style = "green" if answer["approved"] else "yellow"
        console.print(styled((answer["decision"], style), f" {answer['step_id']} of run {run_id}"))


def _asked(run_id: str, steps: dict[str, Any], step: str | None) -> dict[str, Any]:
    """The open approval that is meant."""
    found = {its_id: item["approval"] for its_id, item in steps.items() if "approval" in item}
    if step is not None and step not in steps:
        fail(f"run {run_id} has no step {step!r}; its steps are {', '.join(steps)}")
    if step is None and len(found) > 1:
        fail(f"run {run_id} asks several things; name the step: {', '.join(found)}")
    step = step or next(iter(found), None)
    if step is None:
        fail(f"run {run_id} asks nobody; `stepwell runs show {run_id}` shows how it stands")
    if step not in found:
        value = steps[step]
        output = f": {short(value['output'], 300)}" if value["status"] == "completed" else ""
        fail(f"step {step} of run {run_id} waits for nobody, it is {value['status']}{output}")
    approval: dict[str, Any] = found[step]
    return approval


def own_name() -> str | None:
    """Of whoever runs this, on this machine."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in some containers
        return None
