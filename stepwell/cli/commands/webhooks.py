"""`stepwell webhooks`: manages the rules that turn requests of any sender into events."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from stepwell.cli.commands.webhook_hooks import ShellHooks
from stepwell.cli.push.rules import put_rules, rules_at
from stepwell.cli.push.webhooks import ServerWebhooks, show_webhooks, without_time
from stepwell.cli.remote.client import Client, in_path
from stepwell.cli.remote.environments import EnvOption
from stepwell.cli.ui.output import JsonOption, console, fail, print_json
from stepwell.cli.ui.tables import local_time
from stepwell.terminal import shown

if TYPE_CHECKING:
    from stepwell.api.webhooks.webhooks import Reply

app = typer.Typer(no_args_is_help=True, help="Manage webhooks, which turn requests of any sender into events.")


class Method(StrEnum):
    POST = "POST"
    GET = "GET"
    HEAD = "HEAD"


NameArgument = Annotated[str, typer.Argument(help="The webhook's name, as in /webhooks/NAME.")]
_TYPES = {".json": "application/json", ".form": "application/x-www-form-urlencoded", ".txt": "text/plain"}


@app.command("list")
def list_webhooks(env: EnvOption = None, as_json: JsonOption = False) -> None:
    """List the webhooks of a server.

    Example: stepwell webhooks list --json
    """
    webhooks = Client(env).get("/v1/webhooks")["data"]
    if as_json:
        print_json(webhooks)
        return
    table = Table("webhook", "event", "signed", "changed", box=None, header_style="dim", pad_edge=False)
    for webhook in webhooks:
        signed = shown(webhook["verify"]["type"]) if "verify" in webhook else "[yellow]no[/]"
        table.add_row(shown(webhook["name"]), shown(webhook["event"]), signed, local_time(webhook["changed_at"]))
    console.print(table if webhooks else "no webhooks; `stepwell webhooks push` creates those in webhooks/ folders")


@app.command()
def show(name: NameArgument, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """Show the address and the rule of a webhook.

    Example: stepwell webhooks show github
    """
    client = Client(env)
    value = client.get(f"/v1/webhooks/{in_path(name)}")
    if as_json:
        print_json(value)
        return
    address = f"{client.url}/webhooks/{value['name']}"
    console.print(f"[bold]POST[/] {shown(address)}  [dim]changed {local_time(value['changed_at'])}[/]", soft_wrap=True)
    console.print_json(data=without_time(value))


@app.command()
def push(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(exists=True, help="Files of rules, or folders to search for webhooks folders."),
    ] = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create or update webhooks from files of rules, and from the `webhooks` folders at or below the paths.

    Example: stepwell webhooks push functions/
    """
    from stepwell.project.webhooks import find_webhooks, read_webhook

    webhooks = rules_at(paths or [Path()], find_webhooks, read_webhook)
    if not webhooks:
        fail("no webhooks found; write a rule to a file such as webhooks/github.json")
    server = ServerWebhooks(Client(env))
    done = put_rules(server.rules, server.put, webhooks, dry_run=False)
    if as_json:
        print_json(done)
    elif all(item["change"] == "unchanged" for item in done):
        console.print("nothing has changed")
    else:
        show_webhooks(done)


@app.command()
def remove(name: NameArgument, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """Remove a webhook. Requests to it are answered with 404. Events that it created stay.

    Example: stepwell webhooks remove github
    """
    value = Client(env).delete(f"/v1/webhooks/{in_path(name)}")
    if as_json:
        print_json(value)
    else:
        console.print(f"removed {shown(value['name'])}")


@app.command("test")
def try_rule(
    name: Annotated[str, typer.Argument(help="The webhook's name, or the file of a rule.")],
    body: Annotated[str | None, typer.Option(help="The file with the request's body; - for stdin.")] = None,
    header: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", metavar="NAME:VALUE", help="A header of the request. Repeatable."),
    ] = None,
    query: Annotated[str, typer.Option(help="The query of the request, such as a=1&b=2.")] = "",
    method: Annotated[Method, typer.Option(help="The method of the request; GET for some challenges.")] = Method.POST,
    check: Annotated[
        bool, typer.Option("--check", help="Check the signature too, with secrets from environment variables.")
    ] = False,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the event that a rule creates from a request, or the answer to a challenge, without sending anything. The
    exit code is 1 if the rule refuses the request.

    Example: stepwell webhooks test github --body push.json --header X-GitHub-Event:push
    """
    from stepwell.api.http.problem import Problem
    from stepwell.api.webhooks.webhooks import Delivery, Reply, made_event

    if body is None and method is Method.POST:
        fail("--body is missing; pass the file with the request's body, or - for stdin", 2)
    kind = _TYPES.get(Path(body or "").suffix, "")
    headers = ({"content-type": kind} if kind else {}) | dict(map(_header, header or ()))
    rule = _rule(name, env)
    delivery = Delivery(rule["name"], headers, query, b"" if body is None else _content(body), method.value)
    try:
        made = made_event(rule, delivery, ShellHooks(rule) if check else None, round(time.time() * 1000))
    except Problem as problem:
        fail(str(problem))
    if isinstance(made, Reply):
        _show_reply(made, as_json)
    elif made is None:
        console.print_json(data=None) if as_json else console.print("ignored: the rule's `if` is false")
    elif as_json:
        print_json(made)
    else:
        console.print_json(data=made)


def _show_reply(reply: Reply, as_json: bool) -> None:
    text = reply.body.decode("utf-8", "replace")
    if as_json:
        print_json({"answer": text, "content_type": reply.content_type})
    else:
        console.print(f"no event; the answer is this {shown(reply.content_type)}:")
        console.print(text, markup=False, soft_wrap=True)


def _rule(name: str, env: str | None) -> dict[str, Any]:
    from stepwell.project.source import LoadError
    from stepwell.project.webhooks import read_webhook

    file = Path(name)
    if file.suffix not in (".json", ".yaml", ".yml"):
        return without_time(Client(env).get(f"/v1/webhooks/{in_path(name)}"))
    try:
        return read_webhook(file).rule
    except LoadError as error:
        fail("\n".join(map(str, error.problems)))


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        fail(f"--header {text!r} is not a header; write it like X-GitHub-Event:push", 2)
    return name.strip().lower(), value.strip()


def _content(body: str) -> bytes:
    if body == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(body).read_bytes()
    except OSError as error:
        fail(f"--body: cannot read {body}: {error.strerror}", 2)
