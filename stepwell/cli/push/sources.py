"""Pushes sources from files to a server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from stepwell.cli.remote.client import Client, in_path
from stepwell.cli.ui.output import console
from stepwell.terminal import shown

if TYPE_CHECKING:
    from stepwell.project.sources import SourceFile

Json = dict[str, Any]


def put_sources(client: Client, sources: Iterable[SourceFile], dry_run: bool) -> list[Json]:
    """Stores the sources that are new or changed. Returns name and change (created, updated, unchanged) of each."""
    files = list(sources)
    known = {item["name"]: definition_of(item) for item in client.get("/v1/sources")["data"]} if files else {}
    done = []
    for file in files:
        before = known.get(file.name)
        change = "created" if before is None else "unchanged" if before == file.source else "updated"
        if change != "unchanged" and not dry_run:
            client.put(f"/v1/sources/{in_path(file.name)}", file.source)
        done.append({"name": file.name, "change": change})
    return done


def show_sources(done: Iterable[Json], dry_run: bool = False) -> None:
    for item in done:
        if item["change"] != "unchanged":
            change = "[yellow]would start[/]" if dry_run else f"[green]{shown(item['change'])}[/]"
            console.print(f"{change} source {shown(item['name'])}", soft_wrap=True)


def definition_of(view: Json) -> Json:
    """The definition in an answer of the API."""
    return {"name": view["name"], "type": view["type"], **view["definition"]}
