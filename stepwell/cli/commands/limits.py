"""`stepwell limits`: lists the limits of functions, with who uses and waits for them, and sets them."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from stepwell.cli.remote.client import Client
from stepwell.cli.ui.output import JsonOption, console, print_json
from stepwell.cli.ui.tables import local_time, short
from stepwell.terminal import shown

_MOST_KEYS = 10  # lines for one limit

FunctionArgument = Annotated[
    str | None, typer.Argument(help="The id of a function. Default: the limits of all functions and groups.")
]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="LIMIT=VALUE",
        help="Set a limit: `concurrency=20`, or `throttle=60/1m` for a throttle. `concurrency=` returns to the"
        " definition. With a FUNCTION, its id may be left out. May be repeated.",
    ),
]


def limits(function: FunctionArgument = None, settings: SetOption = [], as_json: JsonOption = False) -> None:  # noqa: B006
    """List limits, with who uses and waits for them. With --set, change them: what waits obeys at once.

    Example: stepwell limits welcome --set concurrency=20
    """
    client = Client(None)
    if settings:
        prefix = "" if function is None else f"{function}/"
        values = dict(_setting(text, prefix) for text in settings)
        found = client.put("/v1/limits", {"limits": values})["data"]
    else:
        found = client.get("/v1/limits", **({} if function is None else {"function": function}))["data"]
    if as_json:
        print_json(found)
    elif found:
        console.print(_table(found))
    else:
        console.print("there are no limits; a function has `concurrency` or `throttle`")


def _setting(text: str, prefix: str) -> tuple[str, dict[str, Any] | None]:
    """A limit's id and the new values, from the text of `--set`."""
    name, is_given, value = text.partition("=")
    limit_id = name if name.startswith((prefix, "groups/")) else f"{prefix}{name}"
    if not value and is_given:
        return limit_id, None
    count, is_throttle, period = value.partition("/")
    if not count.isascii() or not count.isdigit():
        message = f"{text}: write LIMIT=NUMBER, as in concurrency=20, or LIMIT=NUMBER/PERIOD for a throttle"
        raise typer.BadParameter(message, param_hint="--set")
    return limit_id, {"limit": int(count), **({"period": period} if is_throttle else {})}


def _table(limits: list[dict[str, Any]]) -> Table:
    table = Table("limit", "value", "key", "used", "waiting", "oldest", box=None, header_style="dim", pad_edge=False)
    for limit in limits:
        value = "not set" if limit["limit"] is None else f"{limit['limit']:,}"
        value += f" in {limit['period']}" if limit["period"] else ""
        value += f" +{limit['burst']:,}" if limit["burst"] else ""
        value += " (set)" if limit["is_set"] else ""
        first = (shown(limit["id"]), shown(value))
        keys = limit["keys"][:_MOST_KEYS]
        for key in keys or [{"key": None, "used": 0, "waiting": 0, "oldest": None}]:
            name = "" if key["key"] is None else shown(short(key["key"], 40))
            used = "" if limit["period"] else f"{key['used']:,}"
            table.add_row(*first, name, used, f"{key['waiting']:,}", local_time(key["oldest"]))
            first = (shown(""), shown(""))
        if (more := limit["keys_in_use"] - len(keys)) > 0:
            table.add_row("", "", f"and {more:,} more keys", "", "", "")
    return table
