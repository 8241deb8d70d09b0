"""What a test can do to Stepwell, and see of it: the same words on one machine and on AWS.

Time stands still, and passes only when the test travels. Steps are really executed. What settles:

- Words that show something, `run`, `runs`, `event` and `events`, first wait until nothing moves any more but what waits
  for time, events or people. So no test needs `settle`, and none is a race.
- `send`, `http` and `api` return when the server has answered, and what was sent is routed: its runs have started, and
  waits that it ends have ended. `deploy`, `push`, `secret`, `cancel` and `rerun` return when that is done.
- `travel`, `approve` and `decline` wait before and afterwards, with all that follows.
- `peek`, `wait` and `http` show what is so at the moment, for tests that hold a step up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import orjson

Json = dict[str, Any]

START = datetime(2026, 6, 1, 10, 0, 30, tzinfo=UTC)  # a Monday; every test begins then
PATIENCE_S = 20.0  # how long a condition that a test waits for may take, in real time


class Refused(Exception):
    """Stepwell did not accept a request."""

    def __init__(self, status: int, errors: list[Json]) -> None:
        super().__init__(f"{status}: {errors}")
        self.status, self.errors = status, errors


@dataclass(frozen=True, slots=True)
class Answer:
    """What an HTTP request was answered with. The names of headers are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON. Raises Refused if the status is one of an error."""
        content = orjson.loads(self.body) if self.body else {}
        if self.status >= 400:
            raise Refused(self.status, content.get("errors") or [content])
        return content


class Stepwell(Protocol):
    def deploy(self, path: Path | str) -> Any:
        """Make a function live; its version. Of a folder of functions, make all live; their versions by id. Raises
        Refused."""

    def send(self, name: str, data: Json | None = None, user: Json | None = None, **envelope: Any) -> str:
        """Send one event; its id, once it is accepted and routed. Raises Refused."""

    def send_raw(self, body: bytes) -> list[str]:
        """Send the body of a request as it is; the ids of its events. Raises Refused."""

    def http(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """A request to the HTTP API, whose path may have a query. Without a header `authorization`, with a key that
        may do everything."""

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """The same with JSON. Raises Refused."""

    def runs(self, event_id: str | None = None) -> list[Json]:
        """The runs of an event, or all, the oldest first, once nothing moves any more; as `/v1/runs/{id}` has them."""

    def run(self, run_id: str) -> Json:
        """A run, once nothing moves any more. One whose step runs on for a minute is shown as it is then."""

    def peek(self, run_id: str) -> Json:
        """A run as it is now, while things still move."""

    def wait(self, run_id: str, until: Callable[[Json], bool]) -> Json:
        """A run as soon as the condition holds."""

    def event(self, event_id: str) -> Json:
        """An event, with what it did not start and why, once nothing moves any more."""

    def events(self, name: str | None = None) -> list[Json]:
        """Events, the engine's own among them, the oldest first, once nothing moves any more."""

    def cancel(self, run_id: str) -> None: ...

    def rerun(self, run_id: str) -> str | None:
        """Run the same event again; the new run's id, None if the function is not live any more."""

    def approve(self, run_id: str, step: str | None = None, comment: str | None = None, by: str | None = None) -> Json:
        """Approve at the link of an open approval, the only one if no step is named, with all that follows at once; the
        decision. Raises Refused, LookupError if none is open."""

    def decline(self, run_id: str, step: str | None = None, comment: str | None = None, by: str | None = None) -> Json:
        """The same the other way."""

    def settle(self) -> None:
        """Return when nothing moves any more, but for what waits for time or events."""

    def travel(self, duration: str) -> None:
        """Let time pass, such as `1h30m`, and settle; what is due on the way happens at its own time."""

    def secret(self, name: str, value: str) -> None:
        """Give a secret its value, for the steps that name it."""

    def restart(self, downtime: str = "0s") -> None:
        """What runs is gone in the middle of everything, and the servers come back later."""
