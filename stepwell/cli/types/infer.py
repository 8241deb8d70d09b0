"""`stepwell types infer`: writes a first schema, from events that were sent."""

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
    files: Annotated[
        list[Path] | None, typer.Argument(help="Files of events, one JSON object a line; - for stdin.")
    ] = None,
    event: Annotated[
        str | None, typer.Option(help="The name of the events; without files, stored events of the server are read.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="The number of newest events to read from the server.")] = 1000,
    out: Annotated[Path | None, typer.Option(help="The file to write; default: stdout.")] = None,
    env: EnvOption = None,
) -> None:
    """Infer a schema from the data of events, in files or stored on a server. Review the schema before you use it: it
    describes only these events.

    Example: stepwell types infer --event order/placed --out schemas/order/placed.1.schema.json
    """
    from stepwell.event_types.infer import infer

    if files:
        events = list(_of_one_name(_lines(files), event))
    elif event is not None:
        events = list(Client(env).pages("/v1/events", limit, name=event))
    else:
        fail("no events are given; name files, or pass --event to read stored events", 2)
    if not events:
        fail("the files contain no events" if event is None else f"there are no events named {event}")
    schema = infer(events)
    if out is None:
        print_json(schema)
        return
    if out.exists():
        fail(f"{out} already exists; remove it, or name another file")
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
            fail(f"the events have several names, such as {only} and {event['name']}; choose one with --event", 2)
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
        fail(f"{place}: not JSON: {error}")
    if not isinstance(json, dict) or not isinstance(json.get("name"), str):
        fail(f'{place}: not an event; write it like {{"name": "user/signed.up", "data": {{}}}}')
    if not isinstance(json.get("data") or {}, dict):
        fail(f"{place}: data must be a JSON object")
    return json
