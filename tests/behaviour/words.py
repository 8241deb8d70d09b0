"""The interface of the behaviour suite: what a test can do with a platform, in the terms of a user.

Each platform implements `Platform` once. The tests use nothing else of a platform.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from stepwell.testing.platform import START, Answer, Json, Refused

__all__ = [
    "START",
    "Answer",
    "Json",
    "Platform",
    "Refused",
    "function",
    "has",
    "moment",
    "script",
    "statuses",
    "write_function",
]

# The script of most steps. The event's data contains what each step does, by step and attempt (the last entry is used
# for
# all later attempts): {"return": x}, {"raise": "text"}, {"status": 404}, {"sleep": seconds}, {"wait_for": path}, ...
SCRIPTED = """
import os, time

def scripted(event, context):
    ctx = event["ctx"]
    script = event["event"]["data"].get("script", {}).get(ctx["step_id"], [{}])
    act = script[min(ctx["attempt"], len(script)) - 1]
    if "log" in act:
        print(act["log"])
    if "touch" in act:
        with open(act["touch"], "a") as file:
            file.write(f"{ctx['step_id']} {ctx['attempt']}\\n")
    if "wait_for" in act:
        while not os.path.exists(act["wait_for"]):
            time.sleep(0.005)
    if "raise" in act:
        raise RuntimeError(act["raise"])
    if "crash" in act:
        os._exit(act["crash"])
    if "status" in act:
        return {k: v for k, v in act.items() if k in ("status", "retry_after", "body")}
    if "input" in act:
        ctx.pop("token", None)  # AWS has one more field
        return event
    if "size" in act:
        return "x" * act["size"]
    return act.get("return", {"step": ctx["step_id"]})
"""


def function(steps: Json | None = None, *, on: str | Json | list[Json] = "go", id: str = "f", **fields: Any) -> Json:
    """A definition whose steps are scripted by the event, unless they set something else.

    `steps` maps ids to the fields that differ from the default. A list or text as value is short for `after`.
    """
    triggers = on if isinstance(on, list) else [on if isinstance(on, dict) else {"event": on}]
    full = {}
    for step_id, step in (steps or {"a": {}}).items():
        values = step if isinstance(step, dict) else {"after": step}
        after = values.get("after", [])
        edges = [after] if isinstance(after, str | dict) else after
        full[step_id] = {
            "path": "file://steps",
            "runtime": {"type": "lambda", "handler": "app.scripted"},
            "retries": {"attempts": 0},
            **values,
            "after": [{"step": edge} if isinstance(edge, str) else edge for edge in edges],
        }
    return {"id": id, "triggers": triggers, "steps": full, **fields}


class Platform(Protocol):
    """What a test can do with a platform."""

    name: str  # local, aws
    parallelism: int  # how many steps can run at a time

    def deploy(self, definition: Json | str, files: dict[str, str | bytes] | None = None) -> int:
        """Makes a function live, and returns the version.

        `files` are written beside the definition (a text is YAML). `steps/app.py` is the script. Raises Refused.
        """

    def push(self, definition: Json | str, files: dict[str, str | bytes] | None = None, **release: Any) -> Json:
        """Pushes as `stepwell push` does, with `canary`, `sticky`, `guard`, `message`. Returns `version` and `routing`.

        Raises Refused.
        """

    def send(self, name: str = "go", data: Json | None = None, user: Json | None = None, **envelope: Any) -> str:
        """Sends one event, and returns the id. Raises Refused."""

    def send_raw(self, body: bytes) -> list[str]:
        """Sends this request body unchanged, and returns the ids. Raises Refused."""

    def http(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """Makes a request to the HTTP API. `path` may include a query.

        Without an `authorization` header, the request has a key with all rights.
        """

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Makes a request with a JSON body, and returns the JSON of the answer. Raises Refused."""

    def event(self, event_id: str) -> Json: ...

    def events(self, name: str | None = None) -> list[Json]:
        """Stored events, oldest first."""

    def runs(self, event_id: str | None = None) -> list[Json]:
        """Settles, and returns the runs of an event, or all runs, oldest first."""

    def run_of(self, event_id: str) -> str:
        """The id of the event's only run, without settling first."""

    def run(self, run_id: str) -> Json:
        """Settles, and returns a run."""

    def peek(self, run_id: str) -> Json:
        """A run as it is now, without settling."""

    def wait(self, run_id: str, until: Callable[[Json], bool]) -> Json:
        """A run as soon as the condition is true."""

    def cancel(self, run_id: str) -> None: ...

    def rerun(self, run_id: str) -> str | None: ...

    def approve(self, run_id: str, step: str | None = None, comment: str | None = None, by: str | None = None) -> Json:
        """Approves at the link of an open approval (the only one if no step is given), and returns the decision.

        Raises Refused.
        """

    def decline(
        self, run_id: str, step: str | None = None, comment: str | None = None, by: str | None = None
    ) -> Json: ...

    def settle(self) -> None:
        """Waits until whatever is still open waits for time or events."""

    def travel(self, duration: str) -> None:
        """Moves the clock, and settles."""

    def secret(self, name: str, value: str) -> None:
        """Sets the value of a secret, for the steps that name it."""

    def restart(self, downtime: str = "0s") -> None:
        """Stops the servers in the middle of their work, and starts them again after `downtime`."""


def write_function(folder: Path, definition: Json | str, files: dict[str, str | bytes] | None) -> Path:
    """Writes a function into a new folder: `files` beside the definition, and the scripted steps in `steps/app.py`."""
    folder = folder / f"function-{uuid4().hex[:8]}"
    for name, content in {"steps/app.py": SCRIPTED, **(files or {})}.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        if content[:2] in ("#!", b"#!", b"\x7fE"):
            file.chmod(0o755)
    text, suffix = (definition, "yaml") if isinstance(definition, str) else (json.dumps(definition), "json")
    (folder / f"stepwell.{suffix}").write_text(text)
    return folder


def statuses(run: Json) -> dict[str, str]:
    """The status of each step."""
    return {step_id: step["status"] for step_id, step in run["steps"].items()}


def script(**acts: Json | list[Json]) -> Json:
    """The data of an event that scripts the steps: one act for each step, or one for each attempt."""
    return {"script": {step_id: act if isinstance(act, list) else [act] for step_id, act in acts.items()}}


def has(step_id: str, status: str) -> Callable[[Json], bool]:
    """Whether a step of a run has this status."""
    return lambda run: run["steps"][step_id]["status"] == status


def moment(text: str) -> datetime:
    """Parses a time of the API."""
    return datetime.fromisoformat(text)
