"""The methods with which a test drives Stepwell and reads results. They are the same locally and on AWS.

The clock stands still, and moves only when the test calls `travel`. Steps are really executed. A platform is *settled*
when whatever is still open waits for time, events or people. When does a method settle?

- Before `run`, `runs`, `event` and `events` return, they settle. So most tests need no `settle`, and have no races.
- `send`, `http` and `api` return when the server has answered, and the events are routed: runs have started, and waits
  have ended. `deploy`, `push`, `secret`, `cancel` and `rerun` return when they have taken effect. None of them settles.
- `travel`, `approve` and `decline` settle before and after they act.
- `peek`, `wait` and `http` show the present state, for tests that hold up a step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import orjson

Json = dict[str, Any]

START = datetime(2026, 6, 1, 10, 0, 30, tzinfo=UTC)  # a Monday; the time at which every test begins
PATIENCE_S = 20.0  # real seconds that a test waits for a condition


class Refused(Exception):
    """Stepwell did not accept a request."""

    def __init__(self, status: int, errors: list[Json]) -> None:
        super().__init__(f"{status}: {errors}")
        self.status, self.errors = status, errors


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to an HTTP request. The names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON. Raises Refused if the status is an error (400 or above)."""
        content = orjson.loads(self.body) if self.body else {}
        if self.status >= 400:
            raise Refused(self.status, content.get("errors") or [content])
        return content


class Stepwell(Protocol):
    def deploy(self, path: Path | str) -> Any:
        """Makes a function live and returns the version; for a folder of functions, their versions by id.

        Raises Refused.
        """

    def send(self, name: str, data: Json | None = None, user: Json | None = None, **envelope: Any) -> str:
        """Sends one event. Returns the id when the event is accepted and routed. Raises Refused."""

    def send_raw(self, body: bytes) -> list[str]:
        """Sends this request body unchanged. Returns the ids of the events. Raises Refused."""

    def http(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """Makes a request to the HTTP API. `path` may include a query.

        Without an `authorization` header, the request has a key with all rights.
        """

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Makes a request with a JSON body, and returns the JSON of the answer. Raises Refused."""

    def runs(self, event_id: str | None = None) -> list[Json]:
        """Settles, and returns the runs of an event, or all runs, oldest first, as `/v1/runs/{id}` shows them."""

    def run(self, run_id: str) -> Json:
        """Settles, and returns a run. If a step still runs after a minute, the run is returned as it is then."""

    def peek(self, run_id: str) -> Json:
        """A run as it is now, without settling."""

    def wait(self, run_id: str, until: Callable[[Json], bool]) -> Json:
        """A run as soon as the condition is true."""

    def event(self, event_id: str) -> Json:
        """Settles, and returns an event, with the functions that it did not start and the reasons."""

    def events(self, name: str | None = None) -> list[Json]:
        """Settles, and returns the events, oldest first, including the engine's own."""

    def cancel(self, run_id: str) -> None: ...

    def rerun(self, run_id: str) -> str | None:
        """Runs the same event again. Returns the new run's id, or None if the function is no longer live."""

    def approve(self, run_id: str, step: str | None = None, comment: str | None = None, by: str | None = None) -> Json:
        """Approves at the link of an open approval, settles, and returns the decision.

        `step` may be left out if only one approval is open. Raises Refused, and LookupError if none is open.
        """

    def decline(self, run_id: str, step: str | None = None, comment: str | None = None, by: str | None = None) -> Json:
        """Declines at the link of an open approval, like `approve`."""

    def settle(self) -> None:
        """Waits until whatever is still open waits for time, events or people."""

    def travel(self, duration: str) -> None:
        """Moves the clock by a duration such as `1h30m`, and settles. Timers on the way fire at their own times."""

    def secret(self, name: str, value: str) -> None:
        """Sets the value of a secret, for the steps that name it."""

    def restart(self, downtime: str = "0s") -> None:
        """Stops the servers in the middle of their work, and starts them again after `downtime`."""
