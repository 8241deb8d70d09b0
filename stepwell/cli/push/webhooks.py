"""Pushes webhook rules from files to a server, or to an environment in AWS."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stepwell.cli.remote.client import Client, in_path
from stepwell.cli.ui.output import console
from stepwell.terminal import shown

Json = dict[str, Any]


class ServerWebhooks:
    """The rules of webhooks of a server, by name."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def rules(self) -> dict[str, Json]:
        return {item["name"]: without_time(item) for item in self._client.get("/v1/webhooks")["data"]}

    def put(self, rule: Json) -> object:
        return self._client.put(f"/v1/webhooks/{in_path(rule['name'])}", rule)


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
