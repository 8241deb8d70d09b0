"""Replay: runs stored events again on one function. Also the lists of events and runs of a period."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from stepwell.cli.replay.execution import Plan, Replaying
from stepwell.cli.replay.journal import InUse, Journal, NoJournal
from stepwell.cli.replay.selection import Choice
from tests.behaviour.words import START, Json, Platform, Refused, function, script, statuses

ABROAD = {"name": "go", "id": "abroad", "data": {"n": 1}, "user": {"id": "ada"}, "ts": 1_700_000_000_000, "v": "1"}


def replay(platform: Platform, *events: str | Json, id: str = "r1", function: str = "f", **more: Any) -> list[Json]:
    """Replays events, given by id or as a whole, and returns the result for each."""
    items = [{"id": event} if isinstance(event, str) else {"event": event} for event in events]
    answer = platform.api("POST", f"/v1/functions/{function}/replay", {"replay": id, "events": items, **more})
    assert (answer["replay"], answer["function_id"]) == (id, function)
    done: list[Json] = answer["events"]
    assert [one["event_id"] for one in done] == [event if isinstance(event, str) else event["id"] for event in events]
    return done


def listed(platform: Platform, path: str) -> list[str]:
    """The ids of a list, oldest first."""
    return [item["id"] for item in reversed(platform.api("GET", path)["data"])]


# --- a replay makes a separate run -----------------------------------------------------------------------------------


def test_a_replay_runs_a_stored_event_again_on_one_function(platform: Platform) -> None:
    platform.deploy(function(id="f"))
    platform.deploy(function(id="g"))
    event = platform.send(data={"n": 1}, user={"id": "ada"})
    first = platform.runs(event)
    (done,) = replay(platform, event)
    assert done["status"] == "started"
    (again,) = [run for run in platform.runs(event) if run["id"] not in {item["id"] for item in first}]
    assert (again["id"], again["function_id"], again["replay"]) == (done["run_id"], "f", "r1")
    assert (again["status"], again["user"], again["rerun_of"]) == ("completed", "ada", None)
    assert [platform.run(run["id"]) for run in first] == first
    assert {run["replay"] for run in first} == {None}


@pytest.mark.parametrize("drop", [False, True])
def test_a_paused_function_refuses_replays(platform: Platform, drop: bool) -> None:
    platform.deploy(function())
    event = platform.send()
    platform.api("POST", "/v1/functions/f/pause", {"drop": drop})
    for version in ({}, {"version": 1}):
        with pytest.raises(Refused) as refused:
            replay(platform, event, **version)
        assert (refused.value.status, "paused" in str(refused.value)) == (409, True)
    assert len(platform.runs(event)) == 1
    platform.api("POST", "/v1/functions/f/resume")
    assert replay(platform, event)[0]["status"] == "started"


def test_the_same_replay_runs_an_event_only_once(platform: Platform) -> None:
    platform.deploy(function())
    events = [platform.send(data={"n": n}) for n in range(3)]
    assert [item["status"] for item in replay(platform, *events[:2])] == ["started", "started"]
    done = replay(platform, *events, events[2])
    assert [item["status"] for item in done] == ["already", "already", "started", "already"]
    platform.restart()
    assert {item["status"] for item in replay(platform, *events)} == {"already"}
    assert len(platform.runs()) == 6
    assert {item["status"] for item in replay(platform, *events, id="r2")} == {"started"}
    assert len(platform.runs()) == 9


def test_an_unknown_event_is_reported_and_does_not_stop_the_others(platform: Platform) -> None:
    platform.deploy(function())
    event = platform.send()
    done = replay(platform, "nobody sent this", event)
    assert [(item["status"], item["run_id"] is None) for item in done] == [("unknown event", True), ("started", False)]


def test_an_event_of_an_erased_user_is_not_replayed(platform: Platform) -> None:
    platform.deploy(function())
    erased, event = platform.send(user={"id": "ada"}), platform.send(user={"id": "bob"})
    platform.settle()
    platform.api("DELETE", "/v1/users?id=ada")
    done = replay(platform, erased, event)
    assert [(item["status"], item["run_id"] is None) for item in done] == [("unknown event", True), ("started", False)]
    assert len(platform.runs(erased)) == 1


def test_replays_start_in_the_order_of_the_request(platform: Platform) -> None:
    platform.deploy(function())
    events = [platform.send(data={"n": n}) for n in range(5)]
    replay(platform, *events)
    assert [run["event_id"] for run in platform.runs() if run["replay"]] == events


def test_ctx_replay_is_set_only_in_replayed_runs(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": "a"}))
    event = platform.send(data=script(b={"input": True}))
    (first,) = platform.runs(event)
    replay(platform, event, id="2026-11-28.a_b")
    _, again = platform.runs(event)
    assert "replay" not in first["output"]["b"]["ctx"]
    assert again["output"]["b"]["ctx"]["replay"] == "2026-11-28.a_b"
    assert again["output"]["b"]["event"] == first["output"]["b"]["event"]


def test_a_rerun_of_a_replayed_run_belongs_to_the_same_replay(platform: Platform) -> None:
    platform.deploy(function())
    event = platform.send(data=script(a={"input": True}))
    (done,) = replay(platform, event)
    platform.settle()
    again = platform.rerun(done["run_id"])
    assert again is not None
    platform.settle()
    run = platform.run(again)
    assert (run["replay"], run["rerun_of"]) == ("r1", done["run_id"])
    assert run["output"]["a"]["ctx"]["replay"] == "r1"


def test_the_event_of_a_replayed_runs_end_names_the_replay(platform: Platform) -> None:
    platform.deploy(function())
    platform.deploy(function(on="stepwell/run.completed", id="watch"))
    event = platform.send()
    platform.settle()
    replay(platform, event)
    platform.settle()
    ends = [event["data"].get("replay", "none") for event in platform.events("stepwell/run.completed")]
    assert ends == ["none", "r1"]
    assert [run["function_id"] for run in platform.runs()].count("watch") == 2


# --- which version ---------------------------------------------------------------------------------------------------


def test_a_replay_runs_on_the_live_version_or_on_a_given_one(platform: Platform) -> None:
    platform.deploy(function({"a": {}}))
    event = platform.send()
    platform.settle()
    platform.deploy(function({"b": {}}, on="another"))
    replay(platform, event, id="live")
    replay(platform, event, id="old", version=1)
    runs = {run["replay"]: run for run in platform.runs(event)}
    assert (runs["live"]["function_version"], list(runs["live"]["output"])) == (2, ["b"])
    assert (runs["old"]["function_version"], list(runs["old"]["output"])) == (1, ["a"])


def test_a_replay_on_an_old_version_receives_the_events_that_only_this_version_waits_for(platform: Platform) -> None:
    paid = {"event": "paid", "match": "async.data.order == event.data.order", "ttl": "1d"}
    platform.deploy(function({"a": {}, "b": {"after": {"step": "a", "async": paid}}}))
    event = platform.send(data={"order": 7})
    platform.send("paid", {"order": 7})
    platform.settle()
    platform.deploy(function({"a": {}}))
    platform.settle()
    (done,) = replay(platform, event, version=1)
    platform.settle()
    assert statuses(platform.run(done["run_id"]))["b"] == "waiting"
    platform.send("paid", {"order": 7})
    platform.settle()
    assert platform.run(done["run_id"])["status"] == "completed"


def test_an_unknown_function_or_version_is_refused(platform: Platform) -> None:
    platform.deploy(function())
    event = platform.send()
    with pytest.raises(Refused, match="there is no function 'nobody'") as refused:
        replay(platform, event, function="nobody")
    assert refused.value.status == 404
    with pytest.raises(Refused, match="has no version 7; it has 1") as refused:
        replay(platform, event, version=7)
    assert refused.value.status == 409
    assert len(platform.runs(event)) == 1


# --- events from other servers ---------------------------------------------------------------------------------------


def test_an_event_from_another_server_is_stored_and_starts_only_this_function(platform: Platform) -> None:
    platform.deploy(function(id="f"))
    platform.deploy(function(id="g"))
    (done,) = replay(platform, {**ABROAD, "data": script(a={"input": True})})
    (run,) = platform.runs("abroad")
    assert (run["id"], run["function_id"], run["user"], run["replay"]) == (done["run_id"], "f", "ada", "r1")
    seen = run["output"]["a"]["event"]
    assert (seen["id"], seen["ts"], seen["v"]) == ("abroad", 1_700_000_000_000, "1")
    event = platform.event("abroad")
    assert (event["replay"], event["user"], event["not_started"]) == ("r1", {"id": "ada"}, [])
    assert platform.event(platform.send("other"))["replay"] is None


def test_an_event_from_another_server_does_not_change_a_stored_one(platform: Platform) -> None:
    platform.deploy(function())
    event = platform.send(data={"n": "ours"}, id="abroad")
    assert replay(platform, {**ABROAD, "data": {"n": "theirs"}})[0]["status"] == "started"
    assert replay(platform, "abroad")[0]["status"] == "already"
    kept = platform.event(event)
    assert (kept["data"], kept["replay"]) == ({"n": "ours"}, None)
    assert len(platform.runs(event)) == 2


@pytest.mark.parametrize("match", [None, "async.data.n == event.data.n"])
def test_a_replayed_event_satisfies_no_earlier_or_later_wait(platform: Platform, match: str | None) -> None:
    waits = {"event": "go", "ttl": "1d", **({"match": match} if match else {})}
    platform.deploy(function(id="f"))
    steps = {"a": {"after": {"step": "$trigger", "wait": "1m"}}, "b": {"after": {"step": "a", "async": waits}}}
    platform.deploy(function(steps, on="begin", id="waits"))
    waiting = platform.run_of(platform.send("begin", {"n": 1}))
    replay(platform, {**ABROAD, "id": "before"})
    platform.travel("2m")
    replay(platform, {**ABROAD, "id": "after"})
    platform.settle()
    run = platform.run(waiting)
    assert statuses(run)["b"] == "waiting"
    assert "problem" not in run["steps"]["b"]["after"][0]
    news = platform.send("go", {"n": 1})
    platform.settle()
    assert platform.run(waiting)["steps"]["b"]["after"][0]["event_id"] == news


def test_a_replayed_run_waits_only_for_later_events(platform: Platform) -> None:
    platform.deploy(function({"b": {"after": {"step": "$trigger", "async": {"event": "paid", "ttl": "1d"}}}}))
    event = platform.send()
    platform.send("paid")
    platform.settle()
    (done,) = replay(platform, event)
    platform.settle()
    assert statuses(platform.run(done["run_id"])) == {"b": "waiting"}
    platform.send("paid")
    platform.settle()
    assert platform.run(done["run_id"])["status"] == "completed"


def test_engine_events_from_another_server_can_be_replayed(platform: Platform) -> None:
    """Ticks of cron triggers, and ends of runs. Senders cannot use their names and ids, but a replay can."""
    platform.deploy(function(on={"cron": "0 0 1 1 *"}))
    tick = {"name": "stepwell/scheduled.timer", "id": "cron:f:29000000", "data": {"cron": "0 0 1 1 *"}, "ts": 1}
    replay(platform, tick)
    (run,) = platform.runs("cron:f:29000000")
    assert (run["status"], run["replay"]) == ("completed", "r1")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b"[]", ""),
        (b'{"replay": "r1"}', ""),
        (b'{"replay": "r1", "events": []}', "/events"),
        (b'{"replay": "r1", "events": [{"id": "x"}], "to": 1}', ""),
        (b'{"replay": "", "events": [{"id": "x"}]}', "/replay"),
        ('{"replay": "ä", "events": [{"id": "x"}]}'.encode(), "/replay"),
        (b'{"replay": 1, "events": [{"id": "x"}]}', "/replay"),
        (b'{"replay": "%b", "events": [{"id": "x"}]}' % (b"x" * 65), "/replay"),
        (b'{"replay": "r1", "version": "1", "events": [{"id": "x"}]}', "/version"),
        (b'{"replay": "r1", "version": true, "events": [{"id": "x"}]}', "/version"),
        (b'{"replay": "r1", "version": 0, "events": [{"id": "x"}]}', "/version"),
        (b'{"replay": "r1", "events": [{"id": "x"}, "x"]}', "/events/1"),
        (b'{"replay": "r1", "events": [{"id": "x", "event": {}}]}', "/events/0"),
        (b'{"replay": "r1", "events": [{"id": ""}]}', "/events/0/id"),
        (b'{"replay": "r1", "events": [{"id": "x"}, {"event": []}]}', "/events/1/event"),
        (b'{"replay": "r1", "events": [{"event": {"name": "go"}}]}', "/events/0/event/id"),
        (b'{"replay": "r1", "events": [{"event": {"name": "", "id": "x"}}]}', "/events/0/event/name"),
        (b'{"replay": "r1", "events": [{"event": {"name": "go", "id": "x", "data": 1}}]}', "/events/0/event/data"),
        (
            b'{"replay": "r1", "events": [{"event": {"name": "go", "id": "x", "data": {"n": 99999999999999999999}}}]}',
            "/events/0/event/data/n",
        ),
        (b'{"replay": "r1", "events": [%b]}' % b",".join([b'{"id": "x"}'] * 101), "/events"),
    ],
)
def test_an_invalid_request_is_refused_with_a_pointer(platform: Platform, body: bytes, pointer: str) -> None:
    platform.deploy(function())
    with pytest.raises(Refused) as refused:
        platform.http("POST", "/v1/functions/f/replay", body).json()
    assert (refused.value.status, refused.value.errors[0]["pointer"]) == (400, pointer)
    assert platform.runs() == []


def test_a_replay_that_is_too_large_or_not_json_is_refused(platform: Platform) -> None:
    platform.deploy(function())
    large = {**ABROAD, "data": {"text": "x" * 300_000}}
    with pytest.raises(Refused) as refused:
        replay(platform, large)
    assert refused.value.status == 413
    assert platform.http("POST", "/v1/functions/f/replay", b"x" * (4 * 1024 * 1024 + 1)).status == 413
    assert platform.http("POST", "/v1/functions/f/replay", b"{").status == 400
    assert platform.events("go") == []


# --- lists -----------------------------------------------------------------------------------------------------------


def test_runs_of_one_replay_are_listed(platform: Platform) -> None:
    platform.deploy(function({"a": {"retries": {"attempts": 0}}}))
    events = [platform.send(data=script(a={"raise": "no"} if n else {}), user={"id": f"u{n}"}) for n in range(3)]
    platform.settle()
    ids = [item["run_id"] for item in replay(platform, *events)]
    replay(platform, *events, id="r2")
    platform.settle()
    assert listed(platform, "/v1/runs?replay=r1") == ids
    assert listed(platform, "/v1/runs?replay=r1&status=failed") == ids[1:]
    assert listed(platform, "/v1/runs?replay=r1&user=u2&function=f") == ids[2:]
    assert listed(platform, "/v1/runs?replay=nobody") == []


def test_lists_can_be_limited_to_a_period(platform: Platform) -> None:
    platform.deploy(function())
    events = []
    for n in range(6):
        events.append(platform.send(data={"n": n}, user={"id": "ada"}))
        platform.settle()
        platform.travel("10m")
    at = [START + timedelta(minutes=10 * n) for n in range(7)]
    ms = [round(moment.timestamp() * 1000) for moment in at]
    iso = [quote(moment.isoformat()) for moment in at]
    runs = [run["id"] for run in platform.runs()]
    assert listed(platform, f"/v1/events?name=go&since={ms[2]}") == events[2:]
    assert listed(platform, f"/v1/events?name=go&until={ms[2]}") == events[:2]
    assert listed(platform, f"/v1/events?name=go&since={iso[1]}&until={iso[4]}") == events[1:4]
    assert listed(platform, f"/v1/events?name=go&user=ada&since={ms[1] + 1}&until={ms[4] + 1}") == events[2:5]
    assert listed(platform, f"/v1/events?since={ms[6]}") == []
    assert listed(platform, f"/v1/events?since={ms[3]}&until={ms[3]}") == []
    assert listed(platform, f"/v1/runs?since={iso[1]}&until={ms[4]}") == runs[1:4]
    assert listed(platform, f"/v1/runs?function=f&since={ms[5]}") == runs[5:]
    assert listed(platform, f"/v1/runs?status=failed&since={ms[5]}") == []
    page = platform.api("GET", f"/v1/runs?since={ms[1]}&until={ms[5]}&limit=3")
    assert [run["id"] for run in page["data"]] == runs[4:1:-1]
    rest = platform.api("GET", f"/v1/runs?since={ms[1]}&until={ms[5]}&limit=3&after={page['next']}")
    assert ([run["id"] for run in rest["data"]], rest["next"]) == ([runs[1]], None)


@pytest.mark.parametrize("time", ["yesterday", "2026-11-23", "2026-11-23T10:00:00", "-1", "1e3", "9" * 16, "%00"])
def test_an_invalid_time_is_refused(platform: Platform, time: str) -> None:
    for path in ("/v1/events", "/v1/runs"):
        assert platform.http("GET", f"{path}?since={time}").status == 400


@pytest.mark.parametrize("time", ["0", "9" * 15, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_any_valid_time_is_accepted(platform: Platform, time: str) -> None:
    platform.deploy(function())
    event = platform.send()
    platform.settle()
    is_early = time.startswith("0")
    assert listed(platform, f"/v1/events?name=go&since={time}") == ([event] if is_early else [])
    assert len(listed(platform, f"/v1/runs?until={time}")) == (0 if is_early else 1)


# --- the command -----------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The command's process has ended."""


class CommandClient:
    """A client for the command that calls a platform of the tests.

    `dies_after`: how many requests that start runs are made. The last one takes effect, but the answer is lost.
    """

    def __init__(self, platform: Platform, url: str = "https://here", dies_after: int | None = None) -> None:
        self.url, self._platform, self._left = url, platform, dies_after
        self.posted: list[Json] = []

    def get(self, path: str, **query: Any) -> Any:
        asked = urlencode({name: value for name, value in query.items() if value is not None})
        return self._platform.api("GET", f"{path}?{asked}" if asked else path)

    def post(self, path: str, body: Any) -> Any:
        answer = self._platform.api("POST", path, body)
        self.posted.append(body)
        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                raise Killed
        return answer


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def plan(redact: list[list[str]] | None = None, source: str = "https://here", **choice: Any) -> Plan:
    rate = 1e6  # these tests do not measure the rate
    return Plan(source, "https://here", Choice("f", **choice), 1, rate, redact or [])


def replayed(platform: Platform, plan: Plan, source: Platform | None = None) -> list[Json]:
    """Runs a whole replay. Returns the runs in order."""
    journal = Journal.create("r1", asdict(plan))
    there, here = CommandClient(source or platform, plan.source), CommandClient(platform)
    Replaying("r1", plan, journal, there, here, quiet=True).run(dry_run=False, ask=False)  # type: ignore[arg-type]
    platform.settle()
    return [platform.run(run_id) for run_id in listed(platform, "/v1/runs?replay=r1&limit=1000")]


def test_the_command_selects_the_events_that_match_the_functions_triggers(platform: Platform) -> None:
    triggers = [{"event": "go", "expression": "event.data.n > 1"}, {"event": "order/*"}]
    platform.deploy(function(on=triggers))
    sent = [platform.send("go", {"n": n}) for n in range(3)]
    sent += [platform.send("order/paid"), platform.send("else"), platform.send("go", {"n": 5}), platform.send("go")]
    platform.settle()
    assert [run["event_id"] for run in replayed(platform, plan())] == [sent[2], sent[3], sent[5]]


@pytest.mark.parametrize(
    ("choice", "taken"),
    [
        ({"event": "go"}, [0, 1, 2, 3]),
        ({"event": "else"}, [4]),
        ({"user": "ada"}, [0, 2]),
        ({"where": "data.n >= 1 && user.id != 'ada'"}, [1, 3]),
        ({"where": "data.missing"}, []),
        ({"status": "failed"}, [2, 3]),
        ({"status": "failed", "user": "ada"}, [2]),
        ({"status": "completed"}, [0, 1]),
        ({"since": 1}, [0, 1, 2, 3]),
        ({"until": 1}, []),
    ],
)
def test_the_command_selects_events_by_its_options(platform: Platform, choice: Json, taken: list[int]) -> None:
    platform.deploy(function())
    acts = [script(), script(), script(a={"raise": "no"}), script(a={"raise": "no"})]
    users = ["ada", "bob", "ada", "bob"]
    sent = [platform.send("go", {**acts[n], "n": n}, {"id": users[n]}) for n in range(4)]
    sent.append(platform.send("else", {"n": -1}))
    platform.settle()
    assert [run["event_id"] for run in replayed(platform, plan(**choice))] == [sent[n] for n in taken]


def test_the_command_filters_by_the_status_of_the_latest_run(platform: Platform) -> None:
    platform.deploy(function())
    event = platform.send(data=script(a={"raise": "no"}))
    platform.settle()
    platform.deploy(function({"b": {}}))
    replay(platform, event, id="mended")
    platform.settle()
    assert replayed(platform, plan(status="failed")) == []


def test_the_command_replays_the_ticks_of_the_functions_cron_triggers(platform: Platform) -> None:
    for id in ("f", "g"):
        platform.deploy(function(on={"cron": "0 * * * *"}, id=id))
    platform.travel("2h")
    ticks = [run["event_id"] for run in platform.runs() if run["function_id"] == "f"]
    assert len(ticks) == 2
    assert [run["event_id"] for run in replayed(platform, plan())] == ticks


@pytest.mark.parametrize("dies_after", [1, 2])
def test_a_killed_command_continues_without_starting_runs_twice(
    platform: Platform, dies_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepwell.cli.replay.execution._MAX_EVENTS", 3)
    platform.deploy(function(id="f"))
    platform.deploy(function(id="g"))
    sent = [platform.send(data={"n": n}) for n in range(8)]
    platform.settle()
    journal, here = Journal.create("r1", asdict(plan())), CommandClient(platform, dies_after=dies_after)
    with pytest.raises(Killed):
        Replaying("r1", plan(), journal, here, here, quiet=True).run(dry_run=False, ask=False)  # type: ignore[arg-type]
    with pytest.raises(InUse):
        Journal.open("r1")
    journal.close()
    platform.send(data={"n": 9})  # later events do not belong to the replay
    platform.restart()
    journal, here = Journal.open("r1"), CommandClient(platform)
    Replaying("r1", plan(), journal, here, here, quiet=True).run(dry_run=False, ask=False)  # type: ignore[arg-type]
    assert [len(item["events"]) for item in here.posted] == [3, 3, 2][dies_after - 1 :]
    platform.settle()
    runs = [run for run in platform.runs() if run["replay"]]
    assert [run["event_id"] for run in runs] == sent
    assert {run["function_id"] for run in runs} == {"f"}
    with pytest.raises(NoJournal):
        Journal.open("r1")


def test_events_of_one_server_run_on_another_without_redacted_fields(platform: Platform) -> None:
    platform.deploy(function(id="f"))
    platform.deploy(function(id="g"))
    data = {"card": {"number": "4242", "name": "Ada"}, "items": [{"price": 1}, {"price": 2}, 3]}
    event = platform.send("go", {**data, **script(a={"input": True})}, {"id": "ada", "email": "a@b.c"}, id="e")
    platform.settle()
    abroad = OtherServer(platform)
    paths = [["data", "card", "number"], ["data", "items", "*", "price"], ["user", "email"], ["user", "phone"]]
    (run,) = replayed(platform, plan(paths, source="https://there"), abroad)
    seen = run["output"]["a"]["event"]
    assert seen["data"]["card"] == {"number": "[redacted]", "name": "Ada"}
    assert seen["data"]["items"] == [{"price": "[redacted]"}, {"price": "[redacted]"}, 3]
    assert seen["user"] == {"id": "ada", "email": "[redacted]"}
    assert platform.event(f"abroad-{event}")["user"] == seen["user"]
    assert [run["function_id"] for run in platform.runs(f"abroad-{event}")] == ["f"]


class OtherServer:
    """Another server with the same events under different ids."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def api(self, method: str, path: str, body: Any = None) -> Any:
        page = self._platform.api(method, path, body)
        return page | {"data": [event | {"id": f"abroad-{event['id']}"} for event in page["data"]]}
