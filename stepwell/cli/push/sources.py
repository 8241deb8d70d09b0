"""Pushes sources from files to a server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stepwell.cli.remote.client import Client, in_path
from stepwell.cli.ui.output import console
from stepwell.terminal import shown

Json = dict[str, Any]


class ServerSources:
    """The sources of a server, by name."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def rules(self) -> dict[str, Json]:
        return {item["name"]: definition_of(item) for item in self._client.get("/v1/sources")["data"]}

    def put(self, rule: Json) -> object:
        return self._client.put(f"/v1/sources/{in_path(rule['name'])}", rule)


def show_sources(done: Iterable[Json], dry_run: bool = False) -> None:
    for item in done:
        if item["change"] != "unchanged":
            change = "[yellow]would start[/]" if dry_run else f"[green]{shown(item['change'])}[/]"
            console.print(f"{change} source {shown(item['name'])}", soft_wrap=True)


def definition_of(view: Json) -> Json:
    """The definition in an answer of the API."""
    return {"name": view["name"], "type": view["type"], **view["definition"]}
