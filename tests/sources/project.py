"""A project with a source, a server that reads it, and what it shows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.servers import Api, Json, Server, api, dev, eventually, write_function


def write_source(folder: Path, name: str, **fields: Any) -> Path:
    """Writes a source, whose event is `order/<kind of the body>` unless `fields` says otherwise."""
    (folder / "sources").mkdir(parents=True, exist_ok=True)
    file = folder / "sources" / f"{name}.json"
    source = {"event": "order/{{ body.kind }}", **fields}
    file.write_text(json.dumps({key: value for key, value in source.items() if value is not None}, indent=1))
    return file


class Reading:
    """A server that reads sources."""

    def __init__(self, server: Server, http: Api) -> None:
        self.server, self.api = server, http

    def source(self, name: str) -> Json:
        found: Json = self.api.get(f"/v1/sources/{name}")
        return found

    def quarantine(self, name: str) -> list[Json]:
        items: list[Json] = self.api.get(f"/v1/sources/{name}/quarantine")["data"]
        return items

    def events(self, prefix: str = "order/") -> list[Json]:
        """The events of sources whose name begins with a text, oldest first."""
        items: list[Json] = []
        after: dict[str, str] = {}
        while True:
            page = self.api.get("/v1/events", limit=1000, **after)
            items += [event for event in page["data"] if event["name"].startswith(prefix)]
            if page["next"] is None:
                return items[::-1]
            after = {"after": page["next"]}

    def wait_for(self, count: int, prefix: str = "order/") -> list[Json]:
        """Waits until there are this many events, and returns them."""
        return eventually(lambda: found if len(found := self.events(prefix)) >= count else None) or []

    def read(self, name: str, count: int) -> Json:
        """Waits until the source has committed this many records since the server started."""
        return eventually(lambda: found if (found := self.source(name))["records"] >= count else None) or {}

    def post(self, path: str, body: Any = None) -> Json:
        answer = self.api.http.post(path, json=body) if body is not None else self.api.http.post(path)
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found


@contextmanager
def reading(folder: Path, db: Path, *options: str | Path, env: dict[str, str] | None = None) -> Iterator[Reading]:
    """A server that reads the sources in a folder."""
    if not (folder / "f").exists():
        write_function(folder / "f", "f", "order/placed")
    with dev(folder, db, *options, env=env) as server, api(server) as http:
        yield Reading(server, http)
