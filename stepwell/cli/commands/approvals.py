"""`stepwell approvals`, `approve` and `decline`: lists open approvals, and decides on them.

A decision is sent with the token of the approval link, which the command reads from the run first.
"""

from __future__ import annotations

import getpass
from typing import Annotated, Any

import typer

from stepwell.cli.remote.client import Client, in_path
from stepwell.cli.remote.environments import EnvOption
from stepwell.cli.ui.output import JsonOption, console, fail, print_json
from stepwell.cli.ui.tables import approval_lines, short
from stepwell.terminal import styled

RunArgument = Annotated[str, typer.Argument(help="The run's id.")]
StepArgument = Annotated[str | None, typer.Argument(help="The step; needed if several steps wait for a decision.")]
CommentOption = Annotated[str | None, typer.Option("--comment", "-c", help="The reason.")]
ByOption = Annotated[str | None, typer.Option(help="The name of the person who decides; default: your user name.")]


def approvals(
    limit: Annotated[int, typer.Option(min=1, help="The number of approvals to list.")] = 20,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """List open approvals, those of the newest runs first.

    Example: stepwell approvals
    """
    found = list(Client(env).pages("/v1/approvals", limit))
    if as_json:
        print_json(found)
    elif found:
        console.print(approval_lines(found))
    else:
        console.print("no open approvals")


def approve(
    run: RunArgument,
    step: StepArgument = None,
    comment: CommentOption = None,
    by: ByOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Approve a step that waits for a decision. The first decision counts.

    Example: stepwell approve t274kall7kl67sasotbuysxvpu --comment "as agreed"
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
    """Decline a step that waits for a decision. The first decision counts.

    Example: stepwell decline t274kall7kl67sasotbuysxvpu --comment "too expensive"
    """
    _decide("decline_url", run, step, comment, by, env, as_json)


def _decide(
    link: str, run_id: str, step: str | None, comment: str | None, by: str | None, env: str | None, as_json: bool
) -> None:
    client = Client(env)
    steps = client.get(f"/v1/runs/{in_path(run_id)}")["steps"]
    token = _open_approval(run_id, steps, step)[link].rpartition("/")[2]
    answer = client.post(f"/v1/approvals/{in_path(token)}", {"comment": comment, "by": by or user_name()})
    if as_json:
        print_json(answer)
    else:
        style = "green" if answer["approved"] else "yellow"
        console.print(styled((answer["decision"], style), f" {answer['step_id']} of run {run_id}"))


def _open_approval(run_id: str, steps: dict[str, Any], step: str | None) -> dict[str, Any]:
    """The open approval of a step; of the only step that has one if `step` is None. Ends the command if there is
    none."""
    found = {step_id: item["approval"] for step_id, item in steps.items() if "approval" in item}
    if step is not None and step not in steps:
        fail(f"run {run_id} has no step {step!r}; the steps are {', '.join(steps)}")
    if step is None and len(found) > 1:
        fail(f"several steps of run {run_id} wait for a decision; name one: {', '.join(found)}")
    step = step or next(iter(found), None)
    if step is None:
        fail(f"no step of run {run_id} waits for a decision; see `stepwell runs show {run_id}`")
    if step not in found:
        value = steps[step]
        output = f": {short(value['output'], 300)}" if value["status"] == "completed" else ""
        fail(f"step {step} of run {run_id} does not wait for a decision; it is {value['status']}{output}")
    approval: dict[str, Any] = found[step]
    return approval


def user_name() -> str | None:
    """The name of the user who runs the command; None if the user has no name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # some containers run as a user without a name
        return None
