"""`stepwell user ID`: one user, and what happened to it; `stepwell user erase ID`."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperGroup

from stepwell.cli.remote.client import Client
from stepwell.cli.remote.environments import EnvOption
from stepwell.cli.ui.output import JsonOption, confirm, console, fail, print_json
from stepwell.cli.ui.tables import local_time, short, status
from stepwell.terminal import shown, styled


class _ShowIsDefault(TyperGroup):
    """What is no command is a user's id."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        return super().resolve_command(ctx, args if args[0] in self.commands else ["show", *args])


app = typer.Typer(cls=_ShowIsDefault, no_args_is_help=True, help="Show a user, or erase what is kept of one.")
UserArgument = Annotated[str, typer.Argument(help="Any of the user's ids.")]


@app.command()
def show(
    user: UserArgument,
    limit: Annotated[int, typer.Option(min=1, help="How much of the timeline.")] = 20,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a user's ids and traits, and the newest of what happened to it. `stepwell user ID` is short for it.

    Example: stepwell user show ada@example.com
    """
    client = Client(env)
    found = client.one("/v1/users", "user", user)
    entries = list(client.pages("/v1/users/timeline", limit, id=user))
    if as_json:
        print_json({**found, "timeline": entries})
        return
    console.print(styled((found["id"], "bold"), (f"  since {local_time(found['first_seen'])}", "dim")))
    for kind, ids in found["ids"].items():
        if ids:
            console.print(styled((f"  {kind}  ", "dim"), ", ".join(ids)))
    for name, trait in found["traits"].items():
        at = f"  {local_time(trait['at'])}"
        console.print(styled(f"  {name} = {short(trait['value'], 200)}", (at, "dim")))
    for entry in entries:
        console.print(_line(entry))


@app.command()
def erase(
    user: UserArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase what is kept of a user: open runs are cancelled; data, outputs, errors, logs, ids and traits go. Events and
    runs stay as that they were, without what they said.

    Example: stepwell user erase ada@example.com --yes
    """
    client = Client(env)
    found = client.one("/v1/users", "user", user)
    ids = ", ".join(item for some in found["ids"].values() for item in some)
    if not yes and not confirm(f"Erase all that is kept of {ids}? This cannot be undone", err=True):
        fail("nothing was erased")
    answer = client.delete("/v1/users", id=user)
    counts = dict(answer["erased"])
    while not answer["done"]:
        answer = client.delete("/v1/users", id=user)
        counts = {name: count + answer["erased"][name] for name, count in counts.items()}
    if as_json:
        print_json({**found, "erased": counts})
        return
    console.print(styled(("erased ", "yellow"), ids))
    for name, count in counts.items():
        console.print(f"  {shown(name.replace('_', ' '))}  {shown(count)}")


def _line(entry: dict[str, Any]) -> Text:
    at = (f"{local_time(entry['at'])}  ", "dim")
    if entry["type"] == "event":
        return styled(at, "event  ", (entry["name"], "bold"), (f"  {entry['event_id']}", "dim"))
    function = entry["function_id"]
    if entry["type"] == "run":
        text = f"{function} v{entry['function_version']}"
        return styled(at, "run    ", (text, "bold"), "  ", status(entry["status"]), (f"  {entry['run_id']}", "dim"))
    which = f"{function} {entry['step']}" + (f" #{entry['attempt']}" if entry["attempt"] > 1 else "")
    error = f"  {entry['error']['kind']}: {entry['error']['message']}" if entry["error"] else ""
    return styled(at, "step   ", which, "  ", status(entry["status"]), (error, "red"))
