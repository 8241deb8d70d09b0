"""`stepwell sources`: manages the queues and topics of other systems whose records become events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from stepwell.cli.push.rules import put_rules, rules_at
from stepwell.cli.push.sources import ServerSources, definition_of, show_sources
from stepwell.cli.remote.client import Client, in_path
from stepwell.cli.remote.environments import EnvOption
from stepwell.cli.ui.output import JsonOption, console, fail, print_json
from stepwell.cli.ui.tables import elapsed, local_time
from stepwell.terminal import shown

app = typer.Typer(no_args_is_help=True, help="Manage sources, which turn records of other queues into events.")

NameArgument = Annotated[str, typer.Argument(help="The source's name.")]
RecordsArgument = Annotated[
    list[int] | None, typer.Argument(help="The records' ids, from `stepwell sources quarantine`.")
]
AllOption = Annotated[bool, typer.Option("--all", help="All records in the quarantine.")]
_STYLES = {"running": "green", "failing": "red", "paused": "yellow"}
_AT_ONCE = 100  # records of a request


@app.command("list")
def list_sources(env: EnvOption = None, as_json: JsonOption = False) -> None:
    """List the sources of a server: state, lag, last record, quarantined records, errors.

    Example: stepwell sources list
    """
    sources = Client(env).get("/v1/sources")["data"]
    if as_json:
        print_json(sources)
        return
    columns = ("source", "type", "state", "lag", "behind", "events", "last record", "quarantine")
    table = Table(*columns, box=None, header_style="dim", pad_edge=False)
    for source in sources:
        state = f"[{_STYLES.get(source['state'], 'dim')}]{shown(source['state'])}[/]"
        table.add_row(
            shown(source["name"]),
            shown(source["type"]),
            state,
            *_lag_cells(source["lag"]),
            f"{source['events']:,}",
            local_time(source["last_record_at"]),
            f"{source['quarantined']:,}" if source["quarantined"] else "",
        )
    console.print(table if sources else "no sources; write one to a file such as sources/orders.yaml")
    for source in sources:
        if source["error"]:
            where = f"[red]{shown(source['name'])}[/] {shown(source['error'])}"
            console.print(f"{where}  [dim]next try {local_time(source['next_try_at'])}[/]", soft_wrap=True)


def _lag_cells(lag: dict[str, Any]) -> tuple[str, str]:
    """The number of records behind, and the age of the oldest; empty texts if unknown."""
    records, seconds = lag["records"], lag["seconds"]
    return "" if records is None else f"{records:,}", "" if seconds is None else elapsed(seconds)


@app.command()
def show(name: NameArgument, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """Show what a source does, how far each partition is behind, and the definition.

    Example: stepwell sources show orders
    """
    value = Client(env).get(f"/v1/sources/{in_path(name)}")
    if as_json:
        print_json(value)
        return
    state = f"[{_STYLES.get(value['state'], 'dim')}]{shown(value['state'])}[/]"
    console.print(f"[bold]{shown(value['name'])}[/] {state}  [dim]changed {local_time(value['changed_at'])}[/]")
    if value["error"]:
        console.print(f"[red]{shown(value['error'])}[/]", soft_wrap=True)
    if value["lag"]["partitions"]:
        table = Table("partition", "lag", "behind", box=None, header_style="dim", pad_edge=False)
        for lag in value["lag"]["partitions"]:
            table.add_row(shown(lag["partition"]), *_lag_cells(lag))
        console.print(table)
    console.print_json(data=definition_of(value))


@app.command()
def push(
    paths: Annotated[
        list[Path] | None, typer.Argument(exists=True, help="Files, or folders to search for sources folders.")
    ] = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create or update sources from files, and from the `sources` folders at or below the paths.

    Example: stepwell sources push functions/
    """
    from stepwell.project.sources import find_sources, read_source

    sources = rules_at(paths or [Path()], find_sources, read_source)
    if not sources:
        fail("no sources found; write one to a file such as sources/orders.yaml")
    server = ServerSources(Client(env))
    done = put_rules(server.rules, server.put, sources, dry_run=False)
    if as_json:
        print_json(done)
    elif all(item["change"] == "unchanged" for item in done):
        console.print("nothing has changed")
    else:
        show_sources(done)


@app.command()
def remove(name: NameArgument, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """Remove a source and its quarantine. Events that it created stay.

    Example: stepwell sources remove orders
    """
    value = Client(env).delete(f"/v1/sources/{in_path(name)}")
    print_json(value) if as_json else console.print(f"removed {shown(value['name'])}")


@app.command()
def pause(name: NameArgument, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """Pause a source: it reads nothing until it is resumed, also after a restart of the server.

    Example: stepwell sources pause orders
    """
    _do(name, "pause", env, as_json, "paused")


@app.command()
def resume(name: NameArgument, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """Resume a source. It continues after the last record that was accepted.

    Example: stepwell sources resume orders
    """
    _do(name, "resume", env, as_json, "resumed")


@app.command()
def replay(
    name: NameArgument,
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="PLACE",
            help="earliest, a time such as 2026-11-23T10:00:00Z, how long ago (2h), or a position: the id of an entry"
            " of Redis; topic/partition/offset of Kafka, several with commas.",
        ),
    ],
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read records again, from a place on. They make new events, with new ids, so functions run again.

    Example: stepwell sources replay orders --from 2h
    """
    _do(name, "replay", env, as_json, f"reads again from {start}:", {"from": start})


def _do(name: str, what: str, env: str | None, as_json: bool, words: str, body: Any = None) -> None:
    value = Client(env).post(f"/v1/sources/{in_path(name)}/{what}", body)
    print_json(value) if as_json else console.print(f"{shown(words)} {shown(value['name'])}")


@app.command()
def quarantine(
    name: NameArgument,
    record: Annotated[int | None, typer.Argument(help="The id of one record, to show all of it.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The number of records.")] = 50,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the records that made no event, newest first, or show one of them.

    Example: stepwell sources quarantine orders
    """
    client, path = Client(env), f"/v1/sources/{in_path(name)}/quarantine"
    if record is not None:
        value = client.get(f"{path}/{record}")
        print_json(value) if as_json else console.print_json(data=value)
        return
    records = list(client.pages(path, limit))
    if as_json:
        print_json(records)
        return
    table = Table("id", "record", "at", "why", box=None, header_style="dim", pad_edge=False)
    for item in records:
        why = f"{item['field']}: {item['why']}" if item["field"] else item["why"]
        table.add_row(str(item["id"]), shown(item["record"]), local_time(item["at"]), shown(why))
    console.print(table if records else "the quarantine is empty")


@app.command()
def retry(
    name: NameArgument,
    records: RecordsArgument = None,
    everything: AllOption = False,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make events of quarantined records by the source's present rule. The exit code is 1 if some are left.

    Example: stepwell sources retry orders --all
    """
    client = Client(env)
    accepted, left = [], []
    for ids in _pieces(client, name, records, everything):
        answer = client.post(f"/v1/sources/{in_path(name)}/quarantine/retry", {"ids": ids})
        accepted += answer["accepted"]
        left += answer["left"]
    if as_json:
        print_json({"accepted": accepted, "left": left})
    else:
        hint = f"; `stepwell sources quarantine {name}` says why" if left else ""
        console.print(f"{len(accepted):,} accepted, {len(left):,} left in the quarantine{shown(hint)}", soft_wrap=True)
    if left:
        raise typer.Exit(1)


@app.command()
def discard(
    name: NameArgument,
    records: RecordsArgument = None,
    everything: AllOption = False,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete quarantined records.

    Example: stepwell sources discard orders 17
    """
    client = Client(env)
    done: list[int] = []
    for ids in _pieces(client, name, records, everything):
        client.post(f"/v1/sources/{in_path(name)}/quarantine/discard", {"ids": ids})
        done += ids
    print_json({"discarded": done}) if as_json else console.print(f"{len(done):,} discarded")


def _pieces(client: Client, name: str, records: list[int] | None, everything: bool) -> Iterator[list[int]]:
    """The ids of the records that a command is about, some at a time."""
    if everything == bool(records):
        fail("name the records, or pass --all", 2)
    path = f"/v1/sources/{in_path(name)}/quarantine"
    ids = [item["id"] for item in client.pages(path, 1_000_000)] if everything else list(records or ())
    for start in range(0, len(ids), _AT_ONCE):
        yield ids[start : start + _AT_ONCE]
