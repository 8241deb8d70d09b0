"""The server is killed at random moments under load and restarted: no accepted event is lost or duplicated."""

from __future__ import annotations

import itertools
import os
import random
import threading
from pathlib import Path

import httpx

from tests.local.attempts import is_running
from tests.servers import Api, Json, api, eventually, new_key, program, serve, write_function

SEED = int(os.environ.get("STEPWELL_SEED") or random.SystemRandom().randrange(10**6))
KILLS = 5
SENDERS = 3
MATCHING = {
    "work/quick": {"quick", "every"},
    "work/slow": {"slow", "every"},
    "work/none": set(),
    "work/wait": {"waits"},
}


def functions(folder: Path) -> Path:
    say = {"quick": "echo 1", "slow": "sleep 0.05; echo 2"}
    for id, script in say.items():
        write_function(
            folder / id, id, f"work/{id}", a=program(script), b=program(script, after=[{"step": "a", "wait": "300ms"}])
        )
    write_function(
        folder / "every", "every", {"event": "work/*", "expression": "event.name in ['work/quick', 'work/slow']"}
    )
    paid = {"event": "paid", "match": "async.data.order == event.data.order", "ttl": "1h"}
    write_function(
        folder / "waits",
        "waits",
        "work/wait",
        a=program("echo 3"),
        b=program("echo 4", after=[{"step": "a", "async": paid}]),
    )
    return folder


class Load:
    """Threads that send events with ids of their own, each repeatedly until it is accepted."""

    def __init__(self, key: str) -> None:
        self.url = ""
        self.accepted: dict[str, str] = {}  # names by id
        self._key, self._stop = key, threading.Event()
        self._threads = [threading.Thread(target=self._send_all, args=(n,)) for n in range(SENDERS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _send_all(self, sender: int) -> None:
        numbers = random.Random(SEED * 100 + sender)
        n = 0
        with httpx.Client(headers={"authorization": f"Bearer {self._key}"}, timeout=5) as http:
            while not self._stop.is_set():
                name = numbers.choice(sorted(MATCHING))
                order = f"{sender}-{n}"
                events = [{"name": name, "id": order, "data": {"order": order}}]
                if name == "work/wait":  # often before the run's wait is stored
                    events.append({"name": "paid", "id": f"paid-{order}", "data": {"order": order}})
                self._send(http, events)
                n += 1
                self._stop.wait(numbers.random() * 0.06)

    def _send(self, http: httpx.Client, events: list[Json]) -> None:
        while True:
            try:
                if http.post(f"{self.url}/e", json=events).status_code == 200:
                    self.accepted |= {event["id"]: event["name"] for event in events}
                    return
            except httpx.HTTPError:
                pass  # killed: it is unknown whether the event was accepted, so it is sent again
            if self._stop.wait(0.02):
                return


def test_kills_lose_and_duplicate_no_accepted_event(tmp_path: Path) -> None:
    print(f"STEPWELL_SEED={SEED}")
    folder, db = functions(tmp_path / "functions"), tmp_path / "db"
    key = new_key(db)
    numbers = random.Random(SEED)
    with Load(key) as load:
        for _ in range(KILLS):
            with serve(folder, db, "--no-fsync") as server:
                load.url = server.url
                threading.Event().wait(numbers.uniform(0.05, 1.2))  # the moment of the kill
                server.kill()
    with serve(folder, db, "--no-fsync") as server:
        http = Api(server.url, key)
        check_all(http, load.accepted)
        http.close()
        assert server.stop() == 0
        assert [line for line in server.lines if line["level"] == "error"] == []


def check_all(http: Api, accepted: dict[str, str]) -> None:
    assert len(accepted) > 20, "the load is too low"
    eventually(lambda: not http.get("/v1/runs", status="running", limit=1)["data"], within=20, every=0.1)
    runs: dict[str, list[Json]] = {}
    for run in all_runs(http):
        runs.setdefault(run["event_id"], []).append(run)
    for event_id, name in accepted.items():
        items = runs.get(event_id, [])
        assert sorted(run["function_id"] for run in items) == sorted(MATCHING.get(name, ())), (event_id, name)
        for run in items:
            check_run(run)


def all_runs(http: Api) -> list[Json]:
    runs: list[Json] = []
    page = http.get("/v1/runs", limit=1000)
    while True:
        runs += page["data"]
        if page["next"] is None:
            return runs
        page = http.get("/v1/runs", limit=1000, after=page["next"])


def check_run(run: Json) -> None:
    """The run ended well, and each step's attempts are numbered from 1; all but the last one are lost."""
    failed_for_losses = [
        step for step in run["steps"].values() if [a["status"] for a in step["attempts"]] == ["lost"] * 4
    ]
    assert run["status"] == ("failed" if failed_for_losses else "completed"), run
    for step in run["steps"].values():
        attempts = step["attempts"]
        assert [attempt["attempt"] for attempt in attempts] == list(range(1, len(attempts) + 1)), run
        if step["status"] == "completed":
            assert [a["status"] for a in attempts] == ["lost"] * (len(attempts) - 1) + ["completed"], run
        for before, after in itertools.pairwise(attempts):
            assert before["ended_at"] <= after["started_at"], run


def test_no_step_of_a_killed_server_runs_beside_its_next_attempt(tmp_path: Path) -> None:
    started = tmp_path / "started"
    started.mkdir()
    # The second process is a daemon of the first one, in a session of its own.
    script = f'touch {started}/$$; setsid sh -c "touch {started}/\\$\\$; sleep 1000" & sleep 1000'
    folder, db = write_function(tmp_path / "functions", a=program(script)), tmp_path / "db"
    key = new_key(db)

    def running() -> set[int]:
        return {pid for file in started.iterdir() if is_running(pid := int(file.name))}

    with serve(folder, db, "--no-fsync") as server:
        http = Api(server.url, key)
        http.send()
        http.close()
        eventually(lambda: len(running()) == 2)
        first = running()
        server.kill()
        assert running() == first
    with serve(folder, db, "--no-fsync", "--grace", "0") as server:
        eventually(lambda: len(list(started.iterdir())) > 2)
        assert not running() & first
        assert server.stop() == 0
    assert not running()


def test_logs_written_before_a_kill_are_preserved(tmp_path: Path) -> None:
    """For an attempt that the kill interrupts and for one that had ended, with short and long logs."""
    lines = "(i=0; while [ $i -lt 2000 ]; do echo $i is a line of a log that is not a short one; i=$((i+1)); done) >&2"
    first = f"[ -e {tmp_path}/once ] || {{ touch {tmp_path}/once; echo the last >&2; sleep 1000; }}"
    steps = {"a": program(f"{lines}; echo 1"), "b": program(f"{lines}; {first}; echo 2", after=[{"step": "a"}])}
    folder, db = write_function(tmp_path / "f", **steps), tmp_path / "db"
    key = new_key(db)

    def logs(http: Api, event: str) -> list[str]:
        """The logs of the first attempts."""
        run = http.run(http.runs_of(event)[0]["id"])
        return [step["attempts"][0]["logs"] for step in run["steps"].values() if step["attempts"]]

    with serve(folder, db) as server, api(server, key) as http:
        event = http.send()
        eventually(lambda: any("the last" in log for log in logs(http, event)))
        before = logs(http, event)
        server.kill()
    assert [len(log) > 80_000 for log in before] == [True, True]
    with serve(folder, db) as server, api(server, key) as http:
        run = http.ended(event)
        assert [attempt["status"] for attempt in http.run(run["id"])["steps"]["b"]["attempts"]] == ["lost", "completed"]
        assert logs(http, event) == before
        assert server.stop() == 0


def test_routing_of_events_continues_after_kills(tmp_path: Path) -> None:
    """The events are answered, but need more than one batch; the server dies before all of them are done."""
    timeout = {"step": "$trigger", "async": {"event": "wake", "ttl": "1d", "onTimeout": True}}
    folder = write_function(tmp_path / "functions", a=program("echo 1", after=[timeout]))  # skipped once it is woken
    db, many = tmp_path / "db", 1000
    key = new_key(db)
    for events in ([{"name": "go", "id": f"go-{n}"} for n in range(many)], [{"name": "wake", "id": "wake"}]):
        with serve(folder, db, "--no-fsync") as server:
            http = Api(server.url, key)
            if events[0]["name"] == "wake":
                eventually(lambda http=http: len(all_runs(http)) == many, every=0.2)  # type: ignore[misc]
            assert http.http.post("/e", json=events).status_code == 200
            server.kill()
            http.close()
    with serve(folder, db, "--no-fsync") as server:
        http = Api(server.url, key)
        eventually(lambda: not http.get("/v1/runs", status="running", limit=1)["data"], every=0.2)
        runs = all_runs(http)
        http.close()
    assert {run["event_id"] for run in runs} == {f"go-{n}" for n in range(many)}
    assert [run["status"] for run in runs] == ["completed"] * many
