"""`stepwell user ID` shows a user and the user's history; `stepwell user erase ID` erases the user's data."""

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
    """A group in which an argument that is not a subcommand is a user's id: `user ID` is `user show ID`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        return super().resolve_command(ctx, args if args[0] in self.commands else ["show", *args])


app = typer.Typer(cls=_ShowIsDefault, no_args_is_help=True, help="Show a user, or erase the user's data.")
UserArgument = Annotated[str, typer.Argument(help="Any id of the user.")]


@app.command()
def show(
    user: UserArgument,
    limit: Annotated[int, typer.Option(min=1, help="The number of timeline entries.")] = 20,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the ids, the traits and the newest events, runs and steps of a user. Short form: `stepwell user ID`.

    Example: stepwell user show ada@example.com
    """
    client = Client(env)
    found = client.get_by_id("/v1/users", "user", user)
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
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Skip the confirmation.")] = False,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase the data of a user. Open runs are cancelled, and data, outputs, errors, logs, ids and traits are deleted.
    Events and runs stay in the lists, without content.

    Example: stepwell user erase ada@example.com --yes
    """
    client = Client(env)
    found = client.get_by_id("/v1/users", "user", user)
    ids = ", ".join(item for some in found["ids"].values() for item in some)
    if not yes and not confirm(f"Erase all data of {ids}? This cannot be undone", err=True):
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
    step = f"{function} {entry['step']}" + (f" #{entry['attempt']}" if entry["attempt"] > 1 else "")
    error = f"  {entry['error']['kind']}: {entry['error']['message']}" if entry["error"] else ""
    return styled(at, "step   ", step, "  ", status(entry["status"]), (error, "red"))
