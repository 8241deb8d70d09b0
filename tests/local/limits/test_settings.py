"""Settings of limits: the API, and what is queued obeys at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.behaviour.test_concurrency import ONE, held, is_running, is_waiting, send_all
from tests.behaviour.words import Json, Platform, Refused, function
from tests.servers import api, cli, dev, eventually, program, write_function


def limits(platform: Platform, query: str = "") -> dict[str, Json]:
    return {limit["id"]: limit for limit in platform.api("GET", f"/v1/limits{query}")["data"]}


def set_limits(platform: Platform, function_id: str, **values: Json) -> Json:
    answer: Json = platform.api("PUT", f"/v1/functions/{function_id}/limits", {"limits": values})
    return answer


def test_limits_show_who_uses_and_waits_for_them(platform: Platform, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    platform.deploy(function(concurrency={"limit": 1, "key": "event.data.customer"}))
    names = ("ada", "ada", "ada", "eve")
    runs = send_all(platform, *(held(gate, customer=name) for name in names))
    platform.wait(runs[2], is_waiting)
    platform.wait(runs[3], is_running)
    found = limits(platform)["f/concurrency"]
    assert (found["limit"], found["period"], found["is_set"], found["keys_in_use"]) == (1, None, False, 2)
    assert [(key["key"], key["used"], key["waiting"]) for key in found["keys"]] == [("ada", 1, 2), ("eve", 1, 0)]
    assert found["keys"][0]["oldest"] is not None
    gate.touch()
    assert [platform.run(run)["status"] for run in runs] == ["completed"] * 4
    assert limits(platform)["f/concurrency"]["keys"] == []


def test_a_limit_that_is_set_applies_at_once_and_until_it_is_taken_back(platform: Platform, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    platform.deploy(function(concurrency=ONE))
    runs = send_all(platform, *[held(gate)] * 3)
    platform.wait(runs[2], is_waiting)
    (changed,) = set_limits(platform, "f", concurrency={"limit": 2})["data"]
    assert (changed["limit"], changed["is_set"]) == (2, True)
    platform.wait(runs[1], is_running)
    assert is_waiting(platform.peek(runs[2]))
    platform.deploy(function(concurrency={"limit": 3}))  # the setting still applies
    assert limits(platform)["f/concurrency"]["limit"] == 2
    (changed,) = set_limits(platform, "f", concurrency=None)["data"]
    assert (changed["limit"], changed["is_set"]) == (3, False)
    platform.wait(runs[2], is_running)
    gate.touch()
    assert [platform.run(run)["status"] for run in runs] == ["completed"] * 3


def test_a_smaller_limit_starts_nothing_until_enough_have_ended(platform: Platform, tmp_path: Path) -> None:
    gates = [tmp_path / str(n) for n in range(3)]
    platform.deploy(function(concurrency={"limit": 2}))
    runs = send_all(platform, *map(held, gates))
    platform.wait(runs[1], is_running)
    set_limits(platform, "f", concurrency={"limit": 1})
    gates[0].touch()
    platform.wait(runs[0], lambda run: run["status"] == "completed")
    assert is_waiting(platform.peek(runs[2]))
    for gate in gates:
        gate.touch()
    assert [platform.run(run)["status"] for run in runs] == ["completed"] * 3


def test_a_throttle_that_is_set_to_be_faster_starts_what_waits(platform: Platform) -> None:
    platform.deploy(function(throttle={"limit": 1, "period": "1h"}))
    runs = send_all(platform, {}, {}, {})
    assert [platform.run(run)["status"] for run in runs] == ["completed", "running", "running"]
    set_limits(platform, "f", throttle={"limit": 1, "period": "1m", "burst": 60})
    assert [platform.run(run)["status"] for run in runs] == ["completed"] * 3


def test_settings_survive_a_restart(platform: Platform) -> None:
    platform.deploy(function(concurrency=ONE))
    set_limits(platform, "f", concurrency={"limit": 7})
    platform.restart()  # type: ignore[attr-defined]
    assert limits(platform)["f/concurrency"]["limit"] == 7


def test_a_group_is_set_by_its_id(platform: Platform) -> None:
    platform.deploy(function(concurrency={"group": "api"}))
    assert limits(platform)["groups/api/concurrency"]["limit"] is None
    (changed,) = platform.api("PUT", "/v1/limits", {"limits": {"groups/api/concurrency": {"limit": 4}}})["data"]
    assert changed["limit"] == 4
    assert limits(platform, "?function=f") == {}


@pytest.mark.parametrize(
    ("path", "values", "status", "message"),
    [
        ("/v1/limits", {"f/other": {"limit": 1}}, 404, "there is no limit f/other; the limits are f/concurrency"),
        ("/v1/functions/f/limits", {"other": {"limit": 1}}, 404, "there is no limit other; the limits are concurrency"),
        ("/v1/functions/g/limits", {"other": {"limit": 1}}, 404, "g"),
        ("/v1/limits", {"f/concurrency": {"limit": 0}}, 400, "1"),
        ("/v1/limits", {"f/concurrency": {"limit": 1.5}}, 400, "integer"),
        ("/v1/limits", {"f/concurrency": {}}, 400, ""),
        ("/v1/limits", {"f/concurrency": {"period": "1m"}}, 400, "only throttles have this field"),
        ("/v1/limits", {}, 400, ""),
    ],
)
def test_a_setting_that_is_wrong_is_refused(
    platform: Platform, path: str, values: Json, status: int, message: str
) -> None:
    platform.deploy(function(concurrency=ONE))
    with pytest.raises(Refused) as refused:
        platform.api("PUT", path, {"limits": values})
    assert refused.value.status == status
    assert message in str(refused.value)
    assert limits(platform)["f/concurrency"]["is_set"] is False


def test_the_command_lists_and_sets_limits(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    wait = program(
        f'while [ ! -e {gate} ]; do sleep 0.01; done; echo "{{}}"', concurrency={"limit": 1, "key": "data.n"}
    )
    write_function(tmp_path / "f", "orders", a=wait)
    with dev(tmp_path / "f", tmp_path / "db") as server, api(server) as client:
        events = [client.send(data={"n": n}) for n in (1, 1, 2)]
        runs = [client.runs_of(event)[0]["id"] for event in events]
        eventually(lambda: client.run(runs[1])["steps"]["a"].get("waiting_for"))
        listed = cli("limits", "orders", STEPWELL_URL=server.url)
        assert [line.split() for line in listed.stdout.splitlines()][1][:5] == [
            "orders/steps/a/concurrency", "1", "1", "1", "1",
        ]  # fmt: skip
        shown = cli("runs", "show", runs[1], STEPWELL_URL=server.url)
        assert "waits for the limit orders/steps/a/concurrency for 1, next in turn" in shown.stdout
        refused = cli("limits", "orders", "--set", "steps/a/concurrency=x", STEPWELL_URL=server.url)
        assert "write LIMIT=NUMBER" in refused.stderr
        changed = cli("limits", "orders", "--set", "steps/a/concurrency=2", STEPWELL_URL=server.url)
        assert "(set)" in changed.stdout
        eventually(lambda: client.run(runs[1])["steps"]["a"]["status"] == "running")
        back = cli("limits", "orders", "--set", "steps/a/concurrency=", STEPWELL_URL=server.url)
        assert "(set)" not in back.stdout
        gate.touch()
        assert [client.ended(event)["status"] for event in events] == ["completed"] * 3
