"""Shows the life of a function on a new server: a typed event, a canary, a rollback, a replay, and a user's history.

    python examples/lifecycle/demo.py

Each action is a command that you can type yourself. The script stops with an error at the first unexpected result.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx

HERE = Path(__file__).parent
USERS = [f"u-{n}" for n in range(50)]
PATIENCE_S = 60
T = TypeVar("T")

# Version 2 charges with a new provider, which may be down.
NEW_PROVIDER = """
import os

def handler(event, context):
    if os.path.exists(os.environ["OUTAGE"]):
        raise RuntimeError("the new provider is down")
    return {"charged": event["event"]["data"]["amount"], "by": "the new provider"}
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        functions = work / "functions"
        shutil.copytree(HERE, functions / "lifecycle", ignore=shutil.ignore_patterns("demo.py"))
        shutil.copytree(HERE.parent / "invalid-event", functions / "invalid-event")
        outage = work / "outage"
        (functions / "lifecycle" / "charge" / ".env").write_text(f"OUTAGE={outage}\n")
        server = start(work)
        try:
            show("Version 1, the type of the event, and a function that starts on invalid events")
            stepwell("push", str(functions), "--message", "the old provider")
            an_invalid_event_is_refused()
            a_canary_gets_its_share(functions / "lifecycle")
            outage.touch()
            the_guard_rolls_back()
            failed_runs_are_replayed()
        finally:
            server.terminate()
            server.wait()
    print("\nThat is the life of a function.")


def an_invalid_event_is_refused() -> None:
    show("An invalid event is refused, and starts a function")
    answer = post([{"name": "shop/paid", "data": {"amount": "12"}, "user": {"external_id": "u-0"}}])
    (error,) = answer.json()["errors"]
    print(f"{answer.status_code} {error['pointer']}: {error['message']}")
    check((answer.status_code, error["pointer"]) == (400, "/data/amount"), answer.text)
    (run,) = until(lambda: ended("invalid-event"), "the function for invalid events ends")
    print(run["output"]["alert"]["text"])


def a_canary_gets_its_share(folder: Path) -> None:
    show("Version 2 for a fifth of the users, guarded; 500 events from 50 users")
    (folder / "charge" / "app.py").write_text(NEW_PROVIDER)
    canary = ("--canary", "20%", "--sticky", "user.external_id", "--guard")
    stepwell("push", str(folder), *canary, "--message", "a new provider")
    send(500)
    runs = until(lambda: ended("lifecycle", 500), "all runs end")
    check(all(run["status"] == "completed" for run in runs), "a run failed")
    versions: dict[str, set[int]] = defaultdict(set)
    for run in runs:
        versions[run["user"]].add(run["function_version"])
    share = sum(run["function_version"] == 2 for run in runs) / len(runs)
    print(f"{share:.0%} of the runs used version 2; no user saw both")
    check(0.1 <= share <= 0.3, f"the canary got {share:.0%}")
    check(all(len(version) == 1 for version in versions.values()), "a user saw two versions")


def the_guard_rolls_back() -> None:
    show("The new provider is down")
    send(250)
    value = until(lambda: items("/v1/events?name=stepwell/function.rolled_back"), "the guard rolls back")
    print(value[0]["data"]["reason"])
    runs = until(lambda: ended("lifecycle", 750), "all runs end")
    print(f"{sum(run['status'] == 'failed' for run in runs)} runs failed")
    stepwell("versions", "lifecycle")
    check(get("/v1/functions/lifecycle/routing")["canary"] is None, "the canary is still there")


def failed_runs_are_replayed() -> None:
    show("The failed runs are replayed on version 1")
    failed = [run for run in ended("lifecycle", 750) if run["status"] == "failed"]
    stepwell("replay", "--function", "lifecycle", "--status", "failed", "--rate", "100/s", "--yes")
    replayed = until(
        lambda: [run for run in ended("lifecycle", 750 + len(failed)) if run["replay"] is not None], "the replay ends"
    )
    check(
        Counter(run["event_id"] for run in replayed) == Counter(run["event_id"] for run in failed),
        "other events were replayed",
    )
    check(
        {(run["function_version"], run["status"]) for run in replayed} == {(1, "completed")},
        "a replay did not complete on version 1",
    )
    user = failed[0]["user"]
    show(f"The history of {user}, newest first")
    stepwell("user", user)
    timeline = items(f"/v1/users/timeline?id={user}")
    value = {(item["status"], item["replay"] is not None) for item in timeline if item["type"] == "run"}
    check(value == {("completed", False), ("failed", False), ("completed", True)}, f"the timeline contains {value}")


# --- the server, and requests to it ----------------------------------------------------------------------------------


def start(work: Path) -> subprocess.Popen[bytes]:
    """Starts a new `stepwell serve`. The commands find its address and key in the environment."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    database = str(work / "stepwell.db")
    made = stepwell("keys", "create", "--scope", "manage", "--db", database, quiet=True)
    os.environ |= {"STEPWELL_URL": f"http://127.0.0.1:{port}", "STEPWELL_KEY": made.strip()}
    os.environ["XDG_STATE_HOME"] = str(work / "state")
    os.environ.pop("STEPWELL_ENV", None)
    log = (work / "log").open("wb")
    nothing = work / "nothing"
    nothing.mkdir()
    words = [sys.executable, "-m", "stepwell", "serve", str(nothing), "--port", str(port), "--db", database]
    server = subprocess.Popen(words, stdout=log, stderr=log)
    until(is_up, "the server answers")
    return server


def is_up() -> bool:
    try:
        return httpx.get(f"{os.environ['STEPWELL_URL']}/healthz").is_success
    except httpx.ConnectError:
        return False


def stepwell(*words: str, quiet: bool = False) -> str:
    if not quiet:
        print(f"$ stepwell {' '.join(words)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "stepwell", *words], capture_output=True, text=True, check=False)
    if not quiet:
        print(done.stdout, end="", flush=True)
    check(done.returncode == 0, done.stdout + done.stderr)
    return done.stdout


def send(count: int) -> None:
    """Sends events of all users in turn, 100 per request."""
    events = [
        {"name": "shop/paid", "data": {"amount": 10 + n}, "user": {"external_id": USERS[n % len(USERS)]}}
        for n in range(count)
    ]
    for first in range(0, count, 100):
        check(post(events[first : first + 100]).is_success, "an event was refused")


def post(events: list[Any]) -> httpx.Response:
    return httpx.post(f"{os.environ['STEPWELL_URL']}/e/{os.environ['STEPWELL_KEY']}", json=events, timeout=30)


def get(path: str) -> Any:
    headers = {"authorization": f"Bearer {os.environ['STEPWELL_KEY']}"}
    return httpx.get(os.environ["STEPWELL_URL"] + path, headers=headers, timeout=30).raise_for_status().json()


def items(path: str) -> list[Any]:
    found: list[Any] = get(f"{path}{'&' if '?' in path else '?'}limit=1000")["data"]
    return found


def ended(function: str, count: int = 1) -> list[Any]:
    """The runs of a function, once there are at least `count` and all have ended; an empty list before."""
    runs = items(f"/v1/runs?function={function}")
    return runs if len(runs) >= count and all(run["ended_at"] for run in runs) else []


def until(find: Callable[[], T], expected: str) -> T:
    """Calls `find` until it returns something, and returns that."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := find()):
        check(time.monotonic() < deadline, f"this did not happen within {PATIENCE_S} s: {expected}")
        time.sleep(0.1)
    return found


def show(title: str) -> None:
    print(f"\n\033[1m{title}\033[0m" if sys.stdout.isatty() else f"\n# {title}", flush=True)


def check(holds: bool, problem: str) -> None:
    if not holds:
        sys.exit(f"unexpected result: {problem}")


if __name__ == "__main__":
    main()
