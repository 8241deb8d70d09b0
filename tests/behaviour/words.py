"""The words of the behaviour suite: what a test can do to a platform, and see of it, in the user's terms. Each platform
of Stepwell implements `Platform` once; the tests know nothing else of it."""

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

# What the steps of most tests do: the event's data says it, by step and attempt (the last entry counts for all later
# attempts). {"return": x}, {"raise": "text"}, {"status": 404}, {"sleep": seconds}, {"wait_for": path of a file}, ...
SCRIPTED = """
import os, time

def scripted(event, context):
    ctx = event["ctx"]
    script = event["event"]["data"].get("script", {}).get(ctx["step_id"], [{}])
    act = script[min(ctx["attempt"], len(script)) - 1]
    if "log" in act:
        print(act["log"])
    if "touch" in act:
        open(act["touch"], "a").write(f"{ctx['step_id']} {ctx['attempt']}\\n")
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
    """A definition whose steps are scripted by the event, unless they say otherwise.

    `steps` maps ids to what differs from the default; a list or text as value is short for `after`.
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
    """What a test can do, and see."""

    name: str  # local, aws
    parallelism: int  # how many steps may run at a time

    def deploy(self, definition: Json | str, files: dict[str, str | bytes] | None = None) -> int:
        """Make a function live; its version. `files` lie beside the definition (a text is YAML); `steps/app.py` is
        scripted steps. Raises Refused."""

    def push(self, definition: Json | str, files: dict[str, str | bytes] | None = None, **release: Any) -> Json:
        """As `stepwell push` does: `canary`, `sticky`, `guard`, `message`. Answers `version` and `routing`. Raises
        Refused."""

    def send(self, name: str = "go", data: Json | None = None, user: Json | None = None, **envelope: Any) -> str:
        """Send one event; its id. Raises Refused."""

    def send_raw(self, body: bytes) -> list[str]:
        """Send the body of a request as it is; the ids. Raises Refused."""

    def http(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """A request to the HTTP API, whose path may have a query. Without a header `authorization`, with a key that
        may do everything."""

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """The same with JSON. Raises Refused."""

    def event(self, event_id: str) -> Json: ...

    def events(self, name: str | None = None) -> list[Json]:
        """Stored events, the oldest first."""

    def runs(self, event_id: str | None = None) -> list[Json]:
        """Runs, of one event or all, the oldest first, once nothing moves any more."""

    def run_of(self, event_id: str) -> str:
        """The id of an event's only run, while things still move."""

    def run(self, run_id: str) -> Json:
        """A run, once nothing moves any more."""

    def peek(self, run_id: str) -> Json:
        """A run as it is now, while things still move."""

    def wait(self, run_id: str, until: Callable[[Json], bool]) -> Json:
        """A run as soon as the condition holds."""

    def cancel(self, run_id: str) -> None: ...

    def rerun(self, run_id: str) -> str | None: ...

    def approve(self, run_id: str, step: str | None = None, comment: str | None = None, by: str | None = None) -> Json:
        """Approve at the link of an open approval, the only one if no step is named; the decision. Raises Refused."""

    def decline(
        self, run_id: str, step: str | None = None, comment: str | None = None, by: str | None = None
    ) -> Json: ...

    def settle(self) -> None:
        """Return when nothing moves any more, but for what waits for time or events."""

    def travel(self, duration: str) -> None:
        """Let time pass, and settle."""

    def secret(self, name: str, value: str) -> None:
        """Give a secret its value, for the steps that name it."""

    def restart(self, downtime: str = "0s") -> None:
        """The platform's servers stop in the middle of everything, and come back later."""


def write_function(folder: Path, definition: Json | str, files: dict[str, str | bytes] | None) -> Path:
    """A new folder with a function: `files` beside the definition, `steps/app.py` being scripted steps."""
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
    """An event's data that says what the steps do: an act, or one for each attempt."""
    return {"script": {step_id: act if isinstance(act, list) else [act] for step_id, act in acts.items()}}


def has(step_id: str, status: str) -> Callable[[Json], bool]:
    """Whether a step of a run has this status."""
    return lambda run: run["steps"][step_id]["status"] == status


def moment(text: str) -> datetime:
    """A time as the API writes it."""
    return datetime.fromisoformat(text)
