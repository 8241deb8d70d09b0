"""`push` to a server, `versions`, `promote`, `rollback`, `pause`, `resume`, `functions delete`, at a fresh server."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Api, Json, Server, eventually, program, serve, write_function

Command = Callable[..., Any]
FAILS_IF_ASKED = 'case "$(cat)" in *bad*) exit 1;; esac; echo 2'


@pytest.fixture
def server(tmp_path: Path, key: str) -> Iterator[Server]:
    (tmp_path / "none").mkdir()
    with serve(tmp_path / "none", tmp_path / "db") as server:
        yield server


def write(folder: Path, script: str) -> Path:
    write_function(folder, "f", "go", a=program(script))
    return folder


def test_a_guarded_canary_that_fails_rolls_itself_back_and_no_user_saw_both(
    tmp_path: Path, command: Command, http: Api
) -> None:
    assert "pushed v1 f  v1 live" in command("push", write(tmp_path / "f", "echo 1"), "-m", "the first")
    folder = write(tmp_path / "f", FAILS_IF_ASKED)
    canary = ("--canary", "20%", "--sticky", "user.external_id", "--guard")
    words = command("push", folder, *canary)
    assert "v1 live 80%, v2 canary 20%, sticky by user.external_id, guarded" in words
    send(http, 200)
    first, second = (ended(http, n) for n in (200, 200))
    assert first == second
    users: dict[str, set[int]] = defaultdict(set)
    for run in first:
        users[run["user"]].add(run["function_version"])
    assert {len(versions) for versions in users.values()} == {1}
    assert set.union(*users.values()) == {1, 2}
    send(http, 200, "bad")
    eventually(lambda: command("versions", "f", "--json")[1]["weight"] == 1, within=40)
    two, one = command("versions", "f", "--json")
    assert (one["message"], one["failure_rate"], two["weight"]) == ("the first", 0, 0)
    assert two["failure_rate"] > 0.1
    (event,) = http.get("/v1/events", name="stepwell/function.rolled_back")["data"]
    assert (event["data"]["version"], event["data"]["to"]) == (2, 1)
    table = command("versions", "f")
    assert "the first" in table
    assert "100%" in table


def send(http: Api, count: int, what: str = "good") -> None:
    events = [{"name": "go", "user": {"external_id": f"u{n % 50}"}, "data": {"what": what}} for n in range(count)]
    assert http.http.post("/e", json=events).status_code == 200


def ended(http: Api, count: int) -> list[Json]:
    def look() -> list[Json] | None:
        runs: list[Json] = http.get("/v1/runs", limit=1000)["data"]
        return runs if len(runs) == count and all(run["ended_at"] for run in runs) else None

    return eventually(look, within=60) or []


def test_live_functions_are_not_pushed_again_and_a_dry_run_pushes_nothing(tmp_path: Path, command: Command) -> None:
    folder = write(tmp_path / "f", "echo 1")
    assert "would push f" in command("push", folder, "--dry-run")
    assert "no functions are live" in command("functions")
    command("push", folder)
    assert "unchanged f v1" in command("push", folder)
    (folder / ".env").write_text("X=1\n")  # not part of a version, but sent with a push
    assert "pushed v1" in command("push", folder)


def test_promote_rollback_pause_and_resume_print_the_new_routing(tmp_path: Path, command: Command, http: Api) -> None:
    command("push", write(tmp_path / "f", "echo 1"))
    command("push", write(tmp_path / "f", "echo 2"), "--canary", "10%")
    assert "v1 live 50%, v2 canary 50%" in command("promote", "f", "--weight", "50%")
    assert "v2 live" in command("promote", "f")
    assert "there is no canary" in command("promote", "f", code=1)
    assert "v1 live" in command("rollback", "f")
    assert "v2 live" in command("rollback", "f", "--to", "2")
    assert "there is no version 9" in command("rollback", "f", "--to", "9", code=1)
    assert "events are kept" in command("pause", "f")
    event = http.send()
    assert command("resume", "f", "--json")["state"] == "on"
    assert http.ended(event)["function_version"] == 2
    assert "events are dropped" in command("pause", "f", "--drop")
    assert "is not a share" in command("promote", "f", "--weight", "half", code=2)


def test_a_deleted_function_is_gone_until_it_is_pushed_again(tmp_path: Path, command: Command) -> None:
    folder = write(tmp_path / "f", "echo 1")
    command("push", folder)
    assert "deleted" in command("functions", "delete", "f", "--cancel")
    assert "no functions are live" in command("functions")
    assert "v2 live" in command("push", write(tmp_path / "f", "echo 2"))
    assert "there is no function" in command("functions", "delete", "nobody", code=1)


def test_a_refused_push_prints_the_reason(tmp_path: Path, command: Command) -> None:
    folder = write(tmp_path / "f", "echo 1")
    (folder / "link").symlink_to("/etc/passwd")
    assert "is a link that leads out" in command("push", folder, code=1)
    (folder / "link").unlink()
    assert "only a canary can be sticky or guarded" in command("push", folder, "--guard", code=2)
