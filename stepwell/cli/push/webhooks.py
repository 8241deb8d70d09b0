"""Pushes webhook rules from files to a server, or to an environment in AWS."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

from stepwell.cli.remote.client import Client, in_path
from stepwell.cli.ui.output import console
from stepwell.terminal import shown

if TYPE_CHECKING:
    from stepwell.project.webhooks import WebhookFile

Json = dict[str, Any]


class Target(Protocol):
    """The place where webhook rules are stored."""

    def rules(self) -> dict[str, Json]:
        """The stored rules by webhook name."""

    def put_webhook(self, rule: Json) -> object: ...


class ServerWebhooks:
    def __init__(self, client: Client) -> None:
        self._client = client

    def rules(self) -> dict[str, Json]:
        return {item["name"]: without_time(item) for item in self._client.get("/v1/webhooks")["data"]}

    def put_webhook(self, rule: Json) -> object:
        return self._client.put(f"/v1/webhooks/{in_path(rule['name'])}", rule)


def put_webhooks(target: Target, webhooks: Iterable[WebhookFile], dry_run: bool) -> list[Json]:
    """Stores the rules that are new or changed. Returns name and change (created, updated, unchanged) of each."""
    files = list(webhooks)
    known = target.rules() if files else {}
    done = []
    for file in files:
        before = known.get(file.name)
        change = "created" if before is None else "unchanged" if before == file.rule else "updated"
        if change != "unchanged" and not dry_run:
            target.put_webhook(file.rule)
        done.append({"name": file.name, "change": change})
    return done


def show_webhooks(done: Iterable[Json], dry_run: bool = False) -> None:
    for item in done:
        if item["change"] != "unchanged":
            change = "[yellow]would register[/]" if dry_run else f"[green]{shown(item['change'])}[/]"
            console.print(
                f"{change} webhook {shown(item['name'])}  [dim]POST /webhooks/{shown(item['name'])}[/]", soft_wrap=True
            )


def without_time(fields: Json) -> Json:
    """The rule in an answer of the API, without the field `changed_at`."""
    return {field: value for field, value in fields.items() if field != "changed_at"}
