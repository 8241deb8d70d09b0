"""Measures how long hostile requests delay all others, with a real `stepwell serve` whose /healthz is polled.

python bench/hostile.py                       # a table; exit code 1 if a request waited longer than 200 ms
python bench/hostile.py --only json --json numbers.json
"""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent))
from server import PATIENCE_S, BenchError, Keys, Server, Watcher

FUNCTIONS = Path(__file__).resolve().parent / "hostile_functions"
LIMIT_MS = 200
BODY = 4 * 1024 * 1024
EVENT = 250_000

Json = dict[str, Any]
Attack = Callable[[Server, Keys], str]


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    bytes: int
    answer: str
    longest_ms: int


@dataclass(frozen=True, slots=True)
class Case:
    """`bytes`: number of bytes sent. `attack` sends them, and returns a description of the answer."""

    name: str
    bytes: int
    attack: Attack


def post(name: str, body: bytes | Callable[[], bytes], path: str = "/e", **headers: str) -> Case:
    content = body if isinstance(body, bytes) else body()
    sent = {"content-type": "application/json", **{field.replace("_", "-"): value for field, value in headers.items()}}

    def attack(server: Server, keys: Keys) -> str:
        fields = {**sent, "authorization": f"Bearer {keys.manage if path.startswith('/v1') else keys.send}"}
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
        try:
            connection.request("POST", path, content, fields)
            with connection.getresponse() as response:
                response.read()
                return str(response.status)
        except OSError as error:  # the server may close the connection while the body is still being sent
            return type(error).__name__
        finally:
            connection.close()

    return Case(name, len(content), attack)


def raw(name: str, *pieces: bytes, connections: int = 1, pause_s: float = 0.0) -> Case:
    """Sends bytes that are not valid HTTP, over this many connections at once."""

    def attack(server: Server, keys: Keys) -> str:
        sockets = [socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) for _ in range(connections)]
        try:
            for piece in pieces:
                for item in sockets:
                    item.sendall(piece.replace(b"KEY", keys.send.encode()))
                time.sleep(pause_s)
            sockets[0].settimeout(1)
            return sockets[0].recv(100).split(b"\r\n")[0].decode(errors="replace")[9:12]
        except OSError as error:
            return type(error).__name__
        finally:
            for item in sockets:
                item.close()

    return Case(name, sum(map(len, pieces)) * connections, attack)


def event(name: str, data: object = None, **fields: object) -> Json:
    return {"name": f"hostile/{name}", **({} if data is None else {"data": data}), **fields}


def dumps(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def filled(part: Callable[[int], bytes], size: int = BODY, most: int = 1 << 30) -> bytes:
    """A JSON array of parts, with about `size` bytes."""
    count = min(most, (size - 2) // (len(part(99_999)) + 1))
    return b"[" + b",".join(part(i) for i in range(count)) + b"]"


def a_thousand(part: Callable[[int], Json]) -> bytes:
    return dumps([part(i) for i in range(1000)])


def of_4_kb(i: int) -> Json:
    return event("none", {"text": f"{i:05}" + "x" * 4040})


def dense(i: int) -> Json:
    return event("none", {"a": [[]] * 190})


def items(part: object) -> list[object]:
    return [part] * (EVENT // (len(dumps(part)) + 1))


def json_cases() -> Iterator[Case]:
    yield post("json: events, far too many", filled(lambda i: b'{"name":"n"}'))
    yield post("json: events with ids, far too many", filled(lambda i: b'{"name":"n","id":"i%d"}' % i))
    yield post("json: wrong events, far too many", filled(lambda i: b'{"name":1,"x":1}'))
    yield post("json: 1,000 wrong events of 4 KB", a_thousand(lambda i: {f"f{n}": n for n in range(400)}))
    yield post("json: one event of unknown fields", b"{" + b",".join(b'"f%06d":1' % i for i in range(340_000)) + b"}")
    yield post("json: 2 million numbers", b"[" + b"0," * 2_000_000 + b"0]")
    yield post("json: 2 million numbers in an event", b'{"name":"n","data":{"a":[' + b"0," * 2_000_000 + b"0]}}")
    yield post("json: one key 600,000 times", b'{"name":"n","data":{' + b'"a":1,' * 600_000 + b'"a":1}}')
    yield post(
        "json: 350,000 keys", b'{"name":"n","data":{' + b",".join(b'"k%06d":1' % i for i in range(350_000)) + b"}}"
    )
    yield post("json: 200,000 long numbers", b'{"name":"n","data":{"a":[' + b"1234567890123456789," * 200_000 + b"0]}}")
    yield post("json: numbers beyond 64 bits", a_thousand(lambda i: event("n", {"a": [10**25] * 150})))
    yield post("json: one number of 4 MB", b'{"name":"n","data":{"a":' + b"1" * 4_000_000 + b"}}")
    yield post("json: a million lists", b'{"name":"n","data":{"a":[' + b"[]," * 1_300_000 + b"[]]}}")
    yield post("json: nested 2 million deep", b"[" * 2_000_000 + b"]" * 2_000_000)
    yield post(
        "json: nested 200 deep, often", filled(lambda i: b'{"name":"n","data":{"a":' + b"[" * 200 + b"]" * 200 + b"}}")
    )
    yield post(
        "json: CloudEvents, far too many",
        filled(lambda i: b'{"specversion":"1.0","id":"%d","source":"s","type":"n"}' % i),
        content_type="application/cloudevents-batch+json",
    )
    yield post("json: gzip of 4 GB", gzip.compress(b"[" + b" " * (1 << 30)), content_encoding="gzip")
    yield post("json: gzip of 4 MB", gzip.compress(a_thousand(of_4_kb)), content_encoding="gzip")


def event_cases() -> Iterator[Case]:
    yield post("events: 1,000 of 4 KB", a_thousand(of_4_kb))
    yield post("events: 1,000 of 4 KB, of empty lists", a_thousand(dense))
    yield post("events: 1,000 that start a run", a_thousand(lambda i: event("run")))
    yield post(
        "events: 1,000 with two ids of a user",
        a_thousand(lambda i: event("none", user={"id": f"a{i}", "email": f"b{i}"})),
    )
    yield post(
        "events: a user of 200 KB",
        dumps(
            {
                "name": "stepwell/identify",
                "user": {"id": "fat"},
                "data": {"traits": {f"t{k}": "x" * 2000 for k in range(100)}},
            }
        ),
    )
    yield post("events: 1,000 changes of that user", a_thousand(lambda i: event("none", user={"id": "fat", "t1": i})))
    yield post(
        "events: 1,000 ids of one user", a_thousand(lambda i: event("none", user={"id": "many", "email": f"e{i}"}))
    )
    yield post("events: 1,000 that wait", a_thousand(lambda i: event("wait")))
    yield post("events: 1,000 more that wait", a_thousand(lambda i: event("wait")))
    yield post("events: one that wakes 2,000 runs", dumps(event("wake")))
    yield post("events: 16 of 256 KB", dumps([event("none", {"text": "x" * EVENT})] * 16))


def schema_cases() -> Iterator[Case]:
    yield post("schemas: 26,000 wrong items, 3 kinds", dumps(event("kinds", {"items": items({"k": 1})})))
    yield post("schemas: 16 such events", dumps([event("kinds", {"items": items({"k": 1})})] * 16))
    yield post("schemas: 1,000 wrong events", a_thousand(lambda i: event("kinds", {"items": [{"k": 1}] * 400})))
    yield post("schemas: alternatives of wholes", dumps(event("wholes", {"items": items({"k": 1})})))
    yield post("schemas: 16 such events", dumps([event("wholes", {"items": items({"k": 1})})] * 16))
    yield post("schemas: 120 constants, right", dumps(event("constants", {"items": items(119)})))
    yield post("schemas: 1,000 such events", a_thousand(lambda i: event("constants", {"items": [119] * 1000})))
    yield post("schemas: 100 patterns of names", dumps(event("names", {f"x{i}": 1 for i in range(20_000)})))


def expression_cases() -> Iterator[Case]:
    yield post(
        "cel: a loop over words in a text", dumps(event("exists", {"banned": ["zzzz"] * 9000, "text": "z z " * 45_000}))
    )
    yield post("cel: a pattern", dumps(event("pattern", {"text": "x" * EVENT})))
    yield post("cel: a loop in a loop", dumps(event("nested", {"xs": list(range(20_000))})))
    yield post("cel: 1,000 loops that copy", a_thousand(lambda i: event("filter", {"xs": [0] * 1000})))
    yield post("cel: 1,000 loops in loops", a_thousand(lambda i: event("pairs", {"xs": [i] * 99})))
    yield post("cel: 1,000 runs with a loop in `if`", a_thousand(lambda i: event("if", {"xs": [0] * 1000})))
    yield post("cel: 16 long lists, compared", dumps([event("same", {"xs": [0] * 120_000})] * 16))
    delivery = dumps({"xs": ["zzzz"] * 9000, "text": "z z " * 900_000})
    yield post("webhooks: a loop over words in 4 MB", delivery, "/webhooks/hostile")
    yield post(
        "webhooks: 2 million numbers", b'{"xs":[],"text":"","a":[' + b"0," * 1_900_000 + b"0]}", "/webhooks/hostile"
    )
    yield post("webhooks: nested 2 million deep", b"[" * 2_000_000 + b"]" * 2_000_000, "/webhooks/hostile")
    form = b"&".join(b"a%d=1" % i for i in range(400_000))
    yield post(
        "webhooks: a form of 400,000 fields",
        form,
        "/webhooks/hostile",
        content_type="application/x-www-form-urlencoded",
    )
    yield post("webhooks: gzip of 1 GB", gzip.compress(b" " * (1 << 30)), "/webhooks/hostile", content_encoding="gzip")


def http_cases() -> Iterator[Case]:
    head = b"POST /e HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer KEY\r\n"
    tiny = b"".join(b"1\r\n \r\n" for _ in range(20_000))
    yield raw("http: 1-byte chunks", head + b"Transfer-Encoding: chunked\r\n\r\n" + tiny + b"0\r\n\r\n")
    yield raw("http: 20,000 headers", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 20_000 + b"\r\n")
    yield raw("http: 300 connections that say nothing", b"POST", connections=300, pause_s=0.2)
    yield raw(
        "http: 100 bodies that do not end",
        head + b"Content-Length: 4000000\r\n\r\n" + b" " * 50_000,
        connections=100,
        pause_s=0.5,
    )
    yield raw("http: 5,000 requests in one write", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5000)
    yield post(
        "http: API, 1 million lists",
        b'{"replay":"r","events":[' + b"[]," * 1_000_000 + b"[]]}",
        "/v1/functions/hostile-runs/replay",
    )
    yield post(
        "http: API, 190,000 wrong items",
        b'{"replay":"r","events":[' + b"[]," * 190_000 + b"[]]}",
        "/v1/functions/hostile-runs/replay",
    )


GROUPS = {
    "json": json_cases,
    "events": event_cases,
    "schemas": schema_cases,
    "cel": expression_cases,
    "http": http_cases,
}


def measure(case: Case, server: Server, keys: Keys) -> Row:
    watcher = Watcher(server)
    with watcher.running():
        answer = case.attack(server, keys)
    return Row(case.name, case.bytes, answer, round(watcher.longest * 1000))


def show(rows: list[Row]) -> None:
    table = Table("", "bytes", "answer", "others wait, ms")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        style = "red" if row.longest_ms > LIMIT_MS else ""
        table.add_row(row.name, f"{row.bytes:,}", row.answer, f"{row.longest_ms:,}", style=style)
    Console().print(table)


def main(
    only: Annotated[str, typer.Option(help="Groups of inputs, separated by commas.")] = ",".join(GROUPS),
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the numbers to this file, as JSON.")] = None,
) -> None:
    """Sends hostile requests to a new server.

    Exit code 1 if another request waited longer than 200 ms for an answer.
    """
    rows: list[Row] = []
    try:
        with Server(FUNCTIONS, "serve") as server, Console(stderr=True).status("") as status:
            keys = server.make_keys()
            for name in [name.strip() for name in only.split(",")]:
                if name not in GROUPS:
                    raise BenchError(f"{name}: unknown; groups are {', '.join(GROUPS)}")
                for case in GROUPS[name]():
                    status.update(case.name)
                    rows.append(measure(case, server, keys))
    except BenchError as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    show(rows)
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    raise typer.Exit(any(row.longest_ms > LIMIT_MS for row in rows))


if __name__ == "__main__":
    typer.run(main)
