"""A server with limits is killed again and again: no limit is ever exceeded, and every run ends."""

from __future__ import annotations

import os
import random
from pathlib import Path

from tests.ports import free_port
from tests.servers import Api, Json, api, eventually, new_key, program, serve, write_function

SEED = int(os.environ.get("STEPWELL_SEED") or random.SystemRandom().randrange(10**6))
RUNS, LIMIT, KILLS = 60, 3, 4

# Notes how many programs of the step live while it starts. Programs of a killed server die with it.
COUNTED = """
mkdir -p {folder}/live; : > {folder}/live/$$
n=0; for file in {folder}/live/*; do kill -0 "${{file##*/}}" 2>/dev/null && n=$((n + 1)); done
echo $n >> {folder}/counts
sleep 0.03
rm {folder}/live/$$
echo '{{}}'
"""
TIMED = "date +%s%3N >> {folder}/times; echo '{{}}'"


def statuses(client: Api, function: str) -> list[str]:
    runs: list[Json] = client.get("/v1/runs", function=function, limit=1000)["data"]
    return [run["status"] for run in runs]


def test_limits_hold_and_every_run_ends_however_often_the_server_is_killed(tmp_path: Path) -> None:
    numbers, db, port = random.Random(SEED), tmp_path / "db", str(free_port())
    counted = program(COUNTED.format(folder=tmp_path), concurrency={"limit": LIMIT})
    write_function(tmp_path / "f" / "limited", "limited", a=counted)
    paced = program(TIMED.format(folder=tmp_path), throttle={"limit": 10, "period": "1s"})
    write_function(tmp_path / "f" / "paced", "paced", "pace", a=paced)
    key = new_key(db)
    for kill in range(KILLS + 1):
        with serve(tmp_path / "f", db, "--port", port) as server, api(server, key) as client:
            if kill == 0:
                for n in range(RUNS):
                    client.send(id=f"e{n}")
                    client.send("pace", id=f"p{n}") if n < RUNS // 3 else None
            if kill < KILLS:
                eventually(lambda before=kill: len(lines(tmp_path / "counts")) > before * 5)  # type: ignore[misc]
                for _ in range(numbers.randrange(20)):
                    client.get("/v1/runs", function="limited", limit=1)
                server.kill()
                continue
            for name, count in (("limited", RUNS), ("paced", RUNS // 3)):
                eventually(lambda name=name: "running" not in statuses(client, name), within=60)  # type: ignore[misc]
                assert statuses(client, name) == ["completed"] * count, f"seed {SEED}"
    assert max(map(int, lines(tmp_path / "counts"))) <= LIMIT, f"seed {SEED}"
    times = sorted(map(int, lines(tmp_path / "times")))
    assert times[-1] - times[0] >= 80 * (RUNS // 3 - 1), f"seed {SEED}"  # ten a second; a start may be a little late


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []
