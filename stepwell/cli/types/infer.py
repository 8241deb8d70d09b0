"""`stepwell types infer`: a first schema, from events that were sent."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from stepwell.cli.remote.client import Client
from stepwell.cli.remote.environments import EnvOption
from stepwell.cli.ui.output import console, fail, print_json
from stepwell.core.json_input import BadJson, parse_json
from stepwell.terminal import shown


def command(
    files: Annotated[list[Path] | None, typer.Argument(help="Events, one JSON object a line; - for stdin.")] = None,
    event: Annotated[
        str | None, typer.Option(help="Only events of this name; without files, those that the server has stored.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many of the server's newest events.")] = 1000,
    out: Annotated[Path | None, typer.Option(help="The file to write.")] = None,
    env: EnvOption = None,
) -> None:
    """Make a schema of the data of events: from files, or from the events that a server has stored. Read it before you
    use it: it describes what was seen.

    Example: stepwell types infer --event order/placed --out schemas/order/placed.1.schema.json
    """
    from stepwell.event_types.infer import infer

    if files:
        events = list(_of_one_name(_lines(files), event))
    elif event is not None:
        events = list(Client(env).pages("/v1/events", limit, name=event))
    else:
        fail("name files with events, or an --event whose stored events are read", 2)
    if not events:
        fail("there are no such events" if event is None else f"there are no events named {event}")
    schema = infer(events)
    if out is None:
        print_json(schema)
        return
    if out.exists():
        fail(f"{out} is there already; remove it, or name another")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(orjson.dumps(schema, option=orjson.OPT_INDENT_2) + b"\n")
    console.print(f"wrote {shown(out)}, from {len(events):,} events", soft_wrap=True)


def _of_one_name(events: Iterable[dict[str, Any]], name: str | None) -> Iterator[dict[str, Any]]:
    only = name
    for event in events:
        if name is not None and event["name"] != name:
            continue
        only = only or event["name"]
        if event["name"] != only:
            fail(f"these are events of several names, such as {only} and {event['name']}; choose one with --event", 2)
        yield event


def _lines(files: list[Path]) -> Iterator[dict[str, Any]]:
    for file in files:
        try:
            content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        except OSError as error:
            fail(f"cannot read {file}: {error.strerror}", 2)
        for number, line in enumerate(content.splitlines(), 1):
            if line.strip():
                yield _event(line, f"{file}:{number}")


def _event(line: bytes, place: str) -> dict[str, Any]:
    try:
        json = parse_json(line)
    except BadJson as error:
        fail(f"{place}: is not JSON: {error}")
    if not isinstance(json, dict) or not isinstance(json.get("name"), str):
        fail(f'{place}: is no event; one is {{"name": "user/signed.up", "data": {{}}}}')
    if not isinstance(json.get("data") or {}, dict):
        fail(f"{place}: data is a JSON object")
    return json
