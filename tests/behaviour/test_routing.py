"""Routing: canaries, promotion and rollback, pausing, deleting; through the HTTP API."""

from __future__ import annotations

import warnings
from collections import Counter
from io import BytesIO
from zipfile import ZipFile, ZipInfo

import pytest

from tests.behaviour.words import SCRIPTED, Json, Platform, Refused, function, script

ONE, TWO = function({"a": {}}), function({"a": {}, "b": "a"})


def two_versions(platform: Platform, weight: float = 0.3, **canary: object) -> None:
    """Makes version 1 live, and version 2 its canary."""
    platform.deploy(ONE)
    platform.deploy(TWO)
    change(platform, "rollback")
    body = {"canary": {"version": 2, "weight": weight, **canary}}
    assert platform.api("PUT", "/v1/functions/f/routing", body)["canary"]["weight"] == weight


def change(platform: Platform, how: str, body: Json | None = None, id: str = "f") -> Json:
    answer: Json = platform.api("POST", f"/v1/functions/{id}/{how}", body or {})
    return answer


def versions_of(platform: Platform, *events: str) -> list[int]:
    return [run["function_version"] for event in events for run in platform.runs(event)]


def send(platform: Platform, count: int, users: int = 1, **data: object) -> list[str]:
    """Sends `count` events of `users` users in turn."""
    return [platform.send(user={"external_id": f"u{n % users}"}, data=data) for n in range(count)]


# --- push ------------------------------------------------------------------------------------------------------------


def test_a_push_makes_a_version_live_and_stores_its_message(platform: Platform) -> None:
    pushed = platform.push(ONE, message="the first")
    assert (pushed["version"], pushed["routing"]["live"]) == (1, 1)
    (run,) = platform.runs(platform.send())
    assert (run["status"], run["output"]) == ("completed", {"a": {"step": "a"}})
    (version,) = platform.api("GET", "/v1/functions/f/versions")["data"]
    assert version["message"] == "the first"
    assert platform.push(ONE)["version"] == 1
    assert platform.push(TWO, message="ünïcode ✓")["version"] == 2
    assert platform.api("GET", "/v1/functions/f/versions")["data"][0]["message"] == "ünïcode ✓"


def test_a_pushed_canary_survives_a_restart_and_is_rolled_back(platform: Platform) -> None:
    assert platform.push(ONE, canary=0.2)["routing"]["canary"] is None  # the first version cannot be a canary
    pushed = platform.push(TWO, canary=0.2, sticky="user.external_id", guard=True)
    canary = pushed["routing"]["canary"]
    expected = {"version": 2, "weight": 0.2, "sticky": "user.external_id", "guarded": True}
    assert {name: canary[name] for name in expected} == expected
    platform.restart()
    assert platform.api("GET", "/v1/functions/f/routing") == pushed["routing"]
    assert platform.push(TWO, canary=0.2, sticky="user.external_id", guard=True)["routing"] == pushed["routing"]
    change(platform, "rollback")
    assert platform.push(TWO, canary=0.5)["routing"]["canary"]["version"] == 2


def test_a_push_to_a_paused_function_does_not_resume_it(platform: Platform) -> None:
    platform.push(ONE)
    change(platform, "pause")
    assert platform.push(TWO)["routing"]["state"] == "paused"
    assert platform.runs(platform.send()) == []


@pytest.mark.parametrize(
    "release", [{"canary": 1.5}, {"canary": 0}, {"guard": True}, {"sticky": "user.id"}, {"canary": 0.1, "sticky": "("}]
)
def test_an_invalid_release_makes_no_version(platform: Platform, release: Json) -> None:
    platform.push(ONE)
    with pytest.raises(Refused):
        platform.push(TWO, **release)
    assert len(platform.api("GET", "/v1/functions/f/versions")["data"]) == 1


def archive(*members: tuple[str, str, int]) -> bytes:
    file = BytesIO()
    with ZipFile(file, "w") as zip_file, warnings.catch_warnings(action="ignore"):  # warns of a duplicate name
        for name, content, mode in members:
            info = ZipInfo(name)
            info.external_attr = mode << 16
            zip_file.writestr(info, content)
    return file.getvalue()


DEFINITION = ("stepwell.json", '{"id": "f", "triggers": [{"event": "go"}]}', 0o100644)
MAIN = ("main.sh", "echo 1", 0o100644)


ARCHIVES = {
    "local": [
        (b"", "cannot be read"),
        (b"PK" + b"x" * 100, "cannot be read"),
        (archive(DEFINITION, MAIN)[:-30], "cannot be read"),
        (archive(), "has 0"),
        (archive(MAIN), "no definition"),
        (archive(DEFINITION), "step-1"),
        (archive(("stepwell.json", '{"id": "f", "trigers": []}', 0o100644), MAIN), "trigers"),
        (archive(DEFINITION, MAIN, ("../evil", "x", 0o100644)), "leads out"),
        (archive(DEFINITION, MAIN, ("/etc/evil", "x", 0o100644)), "leads out"),
        (archive(DEFINITION, MAIN, ("a/../../evil", "x", 0o100644)), "leads out"),
        (archive(DEFINITION, MAIN, ("..\\evil", "x", 0o100644)), "leads out"),
        (archive(DEFINITION, MAIN, ("link", "/etc/passwd", 0o120777)), "link"),
        (archive(DEFINITION, MAIN, ("a", "x", 0o100644), ("a/b", "x", 0o100644)), "the same name"),
        (archive(DEFINITION, MAIN, MAIN), "twice"),
        (archive(DEFINITION, MAIN, ("pipe", "", 0o010644)), "device"),
    ],
    "aws": [(b"", "stepwell push --env"), (archive(DEFINITION, MAIN), "stepwell push --env")],  # accepts no archives
}


def test_an_invalid_archive_is_refused_with_the_reason(platform: Platform) -> None:
    for body, words in ARCHIVES[platform.name]:
        answer = platform.http("POST", "/v1/functions", body, {"content-type": "application/zip"})
        assert answer.status == {"local": 400, "aws": 409}[platform.name]
        assert words in answer.body.decode()
    assert platform.api("GET", "/v1/functions")["data"] == []


def test_a_function_that_cannot_run_here_is_refused_and_the_live_version_stays(platform: Platform) -> None:
    platform.push(ONE)
    step: Json = {"local": {"runtime": {"type": "docker", "image": "x"}}, "aws": {"timeout": "16m"}}[platform.name]
    with pytest.raises(Refused) as refused:
        platform.push(function({"a": step}))
    assert refused.value.status == {"local": 409, "aws": 400}[platform.name]  # on AWS, before anything is sent
    assert versions_of(platform, platform.send()) == [1]


def test_files_on_disk_do_not_undo_a_push_or_a_rollback_when_the_server_starts(platform: Platform) -> None:
    files: dict[str, str | bytes] = {"steps/app.py": SCRIPTED}
    platform.deploy(ONE, files)
    platform.push(TWO, canary=0.3)
    before = platform.api("GET", "/v1/functions/f/routing")
    assert platform.deploy(ONE, files) == 1
    assert platform.api("GET", "/v1/functions/f/routing") == before
    change(platform, "promote")
    change(platform, "rollback")
    assert platform.deploy(ONE, files) == 1
    assert platform.deploy(function({"c": {}}), files) == 3  # a change of the files does take effect
    platform.api("DELETE", "/v1/functions/f")
    platform.deploy(function({"c": {}}), files)
    live = [item["version"] for item in platform.api("GET", "/v1/functions")["data"]]
    assert live == {"local": [], "aws": [3]}[platform.name]  # on AWS, deploying is an explicit push
    assert platform.push(function({"c": {}}), files)["version"] == 3


# --- canary ----------------------------------------------------------------------------------------------------------


def test_a_canary_gets_its_share_of_the_new_runs(platform: Platform) -> None:
    two_versions(platform, 0.5)
    counts = Counter(versions_of(platform, *send(platform, 30)))
    assert counts.keys() == {1, 2}
    assert min(counts.values()) >= 5


def test_a_sticky_canary_gives_a_user_always_the_same_version(platform: Platform) -> None:
    two_versions(platform, 0.5, sticky="user.external_id")
    events = send(platform, 24, users=8)
    seen: dict[str, set[int]] = {}
    for event in events:
        (run,) = platform.runs(event)
        seen.setdefault(run["user"], set()).add(run["function_version"])
    assert all(len(versions) == 1 for versions in seen.values())
    assert set.union(*seen.values()) == {1, 2}


def test_a_greater_weight_moves_users_only_to_the_canary(platform: Platform) -> None:
    two_versions(platform, 0.3, sticky="user.external_id")
    before = versions_of(platform, *send(platform, 12, users=12))
    change(platform, "promote", {"weight": 0.7})
    after = versions_of(platform, *send(platform, 12, users=12))
    assert all(not (old == 2 and new == 1) for old, new in zip(before, after, strict=True))
    assert sum(after) >= sum(before)


def test_the_version_is_chosen_first_and_then_its_triggers_decide(platform: Platform) -> None:
    platform.deploy(ONE)
    platform.deploy(function({"a": {}}, on={"event": "go", "expression": "data.n == 2"}))
    change(platform, "rollback")
    canary = {"version": 2, "weight": 0.5, "sticky": "user.external_id"}
    platform.api("PUT", "/v1/functions/f/routing", {"canary": canary})
    started = 0
    for n in range(8):
        items = [versions_of(platform, platform.send(user={"external_id": n}, data={"n": k})) for k in (1, 2)]
        assert items in ([[1], [1]], [[], [2]])
        started += items == [[], [2]]
    assert 0 < started < 8


def test_runs_keep_their_version_until_they_end(platform: Platform) -> None:
    platform.deploy(ONE)
    slow = function({"a": {}, "b": {"after": {"step": "a", "wait": "1h"}}})
    platform.deploy(slow)
    (run,) = platform.runs(platform.send())
    change(platform, "rollback")
    assert versions_of(platform, platform.send()) == [1]
    platform.travel("1h")
    run = platform.run(run["id"])
    assert (run["function_version"], run["status"]) == (2, "completed")


def test_promote_makes_the_canary_live(platform: Platform) -> None:
    two_versions(platform, 0.1)
    assert change(platform, "promote")["live"] == 2
    assert versions_of(platform, *send(platform, 5)) == [2] * 5
    assert platform.api("GET", "/v1/functions/f/routing")["canary"] is None


def test_rollback_removes_the_canary_and_then_restores_the_previous_version(platform: Platform) -> None:
    two_versions(platform, 0.9)
    assert change(platform, "rollback")["live"] == 1
    assert versions_of(platform, *send(platform, 5)) == [1] * 5
    assert change(platform, "rollback", {"to": 2})["live"] == 2
    assert versions_of(platform, platform.send()) == [2]
    assert change(platform, "rollback")["live"] == 1


def test_a_routing_survives_a_restart(platform: Platform) -> None:
    two_versions(platform, 0.4, sticky="user.external_id")
    before = platform.api("GET", "/v1/functions/f/routing")
    platform.restart()
    assert platform.api("GET", "/v1/functions/f/routing") == before


def test_a_wait_of_a_canary_is_satisfied(platform: Platform) -> None:
    platform.deploy(ONE)
    wait = {"event": "paid", "match": "async.data.order == event.data.order", "ttl": "1d"}
    platform.deploy(function({"a": {}, "b": {"after": {"step": "a", "async": wait}}}))
    change(platform, "rollback")
    platform.api("PUT", "/v1/functions/f/routing", {"canary": {"version": 2, "weight": 0.999}})
    (run,) = platform.runs(platform.send(data={"order": 1}))
    assert run["function_version"] == 2
    platform.send("paid", {"order": 1})
    platform.settle()
    assert platform.run(run["id"])["status"] == "completed"


def test_the_list_of_versions_contains_statistics(platform: Platform) -> None:
    two_versions(platform, 0.5, sticky="user.external_id")
    failing = script(a={"status": 400})["script"]
    runs = [run for event in send(platform, 12, users=12, script=failing) for run in platform.runs(event)]
    counts = Counter(run["function_version"] for run in runs)
    (two, one) = platform.api("GET", "/v1/functions/f/versions")["data"]
    assert (one["version"], two["version"]) == (1, 2)
    assert (one["weight"], two["weight"]) == (0.5, 0.5)
    assert (one["runs"], two["runs"]) == (counts[1], counts[2])
    assert (one["failure_rate"], one["p50_ms"], one["p95_ms"]) == (1, None, None)
    change(platform, "promote")
    platform.runs(platform.send())
    (two, one) = platform.api("GET", "/v1/functions/f/versions")["data"]
    assert (one["weight"], two["weight"], two["runs"]) == (0, 1, counts[2] + 1)
    assert two["failure_rate"] == pytest.approx(counts[2] / (counts[2] + 1))
    assert two["p50_ms"] >= 0


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PUT", "routing", {"canary": {"version": 1, "weight": 0.5}}, 409),  # is live
        ("PUT", "routing", {"canary": {"version": 9, "weight": 0.5}}, 409),
        ("PUT", "routing", {"canary": {"version": 2, "weight": 0}}, 400),
        ("PUT", "routing", {"canary": {"version": 2, "weight": 1}}, 400),
        ("PUT", "routing", {"canary": {"version": 2, "weight": "half"}}, 400),
        ("PUT", "routing", {"canary": {"version": True, "weight": 0.5}}, 400),
        ("PUT", "routing", {"canary": {"version": 2, "weight": 0.5, "sticky": "user."}}, 409),
        ("PUT", "routing", {"canary": {"version": 2, "weight": 0.5, "sticky": 7}}, 400),
        ("PUT", "routing", {"canary": {"version": 2, "weight": 0.5, "wait": 1}}, 400),
        ("PUT", "routing", {}, 400),
        ("PUT", "routing", [], 400),
        ("POST", "promote", {}, 409),
        ("POST", "promote", {"weight": 2}, 400),
        ("POST", "promote", {"to": 2}, 400),
        ("POST", "rollback", {"to": 1}, 409),
        ("POST", "rollback", {"to": 2**60}, 400),
        ("POST", "pause", {"drop": "yes"}, 400),
    ],
)
def test_an_invalid_change_is_refused_and_changes_nothing(
    platform: Platform, method: str, path: str, body: object, status: int
) -> None:
    platform.deploy(ONE)
    platform.deploy(TWO)
    change(platform, "rollback")
    before = platform.api("GET", "/v1/functions/f/routing")
    with pytest.raises(Refused) as refused:
        platform.api(method, f"/v1/functions/f/{path}", body)
    assert refused.value.status == status
    assert platform.api("GET", "/v1/functions/f/routing") == before


@pytest.mark.parametrize("how", ["promote", "rollback", "pause", "resume"])
def test_an_unknown_function_has_no_routing(platform: Platform, how: str) -> None:
    with pytest.raises(Refused) as refused:
        change(platform, how, id="nobody")
    assert refused.value.status == 404


# --- pause -----------------------------------------------------------------------------------------------------------


@pytest.mark.kind("an event whose message fails comes later")
def test_while_paused_events_are_kept_and_routed_in_order_on_resume(platform: Platform) -> None:
    platform.deploy(ONE)
    assert change(platform, "pause")["state"] == "paused"
    events = [platform.send(data={"n": n}) for n in range(60)]
    assert platform.runs() == []
    platform.restart()
    assert platform.runs() == []
    assert change(platform, "resume")["state"] == "on"
    assert [run["event_id"] for run in platform.runs()] == events
    assert change(platform, "resume")["state"] == "on"
    assert len(platform.runs()) == 60


def test_kept_events_are_routed_by_the_version_that_is_live_on_resume(platform: Platform) -> None:
    platform.deploy(ONE)
    change(platform, "pause")
    event = platform.send()
    assert platform.deploy(TWO) == 2
    assert platform.runs() == []
    change(platform, "resume")
    assert versions_of(platform, event) == [2]


def test_only_events_that_would_have_started_the_function_are_kept(platform: Platform) -> None:
    platform.deploy(function(on={"event": "go", "expression": "data.n == 1"}))
    platform.deploy(function(id="other"))
    change(platform, "pause")
    events = [platform.send(data={"n": n}) for n in (1, 2)]
    assert [run["function_id"] for run in platform.runs()] == ["other", "other"]
    change(platform, "resume")
    assert [run["event_id"] for run in platform.runs() if run["function_id"] == "f"] == events[:1]


def test_an_event_shows_the_paused_functions_that_keep_it(platform: Platform) -> None:
    platform.deploy(function(id="started"))
    platform.deploy(function(id="unwilling", on={"event": "go", "expression": "data.n == 2"}))
    for name in ("f", "g"):
        platform.deploy(function(id=name))
        change(platform, "pause", id=name)
    platform.deploy(function(id="elsewhere", on="other"))
    change(platform, "pause", id="elsewhere")
    event = platform.send(data={"n": 1})
    platform.settle()
    reason = "the function is paused and keeps the event until it is resumed"
    false, *kept = sorted(platform.event(event)["not_started"], key=lambda miss: str(miss["problem"] or ""))
    assert (false["function_id"], false["problem"]) == ("unwilling", None)
    assert sorted(miss["function_id"] for miss in kept) == ["f", "g"]
    assert {(miss["expression"], miss["problem"]) for miss in kept} == {("", reason)}
    change(platform, "resume")
    change(platform, "resume", id="g")
    assert sorted(run["function_id"] for run in platform.runs(event)) == ["f", "g", "started"]
    assert [miss["function_id"] for miss in platform.event(event)["not_started"]] == ["unwilling"]


def test_open_runs_continue_while_their_function_is_paused(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {"after": {"step": "a", "wait": "1h"}}}))
    (run,) = platform.runs(platform.send())
    change(platform, "pause")
    platform.travel("1h")
    assert platform.run(run["id"])["status"] == "completed"


def test_a_pause_can_drop_events_and_the_events_show_it(platform: Platform) -> None:
    platform.deploy(ONE)
    assert change(platform, "pause", {"drop": True})["state"] == "dropping"
    event = platform.send()
    platform.settle()
    (miss,) = platform.event(event)["not_started"]
    assert (miss["function_id"], "drops" in miss["problem"]) == ("f", True)
    change(platform, "resume")
    assert platform.runs() == []
    assert versions_of(platform, platform.send()) == [1]


def test_only_the_latest_tick_during_a_pause_runs(platform: Platform) -> None:
    platform.deploy(function(on={"cron": "0 * * * *"}))
    change(platform, "pause")
    platform.travel("5h")
    assert platform.runs() == []
    change(platform, "resume")
    platform.travel("2m")
    (run,) = platform.runs()
    assert run["event_id"].startswith("cron:f:")
    platform.travel("1h")
    assert len(platform.runs()) == 2


def test_a_paused_function_does_not_tick_while_others_do(platform: Platform) -> None:
    platform.deploy(function(on={"cron": "0 * * * *"}))
    platform.deploy(function(on={"cron": "0 * * * *"}, id="g"))
    change(platform, "pause")
    platform.travel("3h")
    ticks = [event["id"] for event in platform.events("stepwell/scheduled.timer")]
    assert [id.split(":")[1] for id in ticks] == ["g"] * 3
    change(platform, "resume")
    platform.travel("2m")
    assert len([run for run in platform.runs() if run["function_id"] == "f"]) == 1


def test_a_rerun_is_possible_while_paused(platform: Platform) -> None:
    platform.deploy(ONE)
    (run,) = platform.runs(platform.send())
    change(platform, "pause")
    assert platform.rerun(run["id"]) is not None


# --- delete ----------------------------------------------------------------------------------------------------------


def test_a_deleted_function_starts_nothing_and_its_open_runs_continue(platform: Platform) -> None:
    platform.deploy(
        function({"a": {}, "b": {"after": {"step": "a", "wait": "1h"}}}, on=[{"event": "go"}, {"cron": "0 * * * *"}])
    )
    (run,) = platform.runs(platform.send())
    assert platform.api("DELETE", "/v1/functions/f")["state"] == "deleted"
    assert platform.api("GET", "/v1/functions")["data"] == []
    event = platform.send()
    platform.travel("1h")
    assert platform.runs(event) == []
    assert [run["id"] for run in platform.runs()] == [run["id"]]
    assert platform.run(run["id"])["status"] == "completed"


def test_open_runs_can_be_cancelled_with_their_function(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {"after": {"step": "a", "wait": "1h"}}}))
    platform.deploy(function({"a": {}, "b": {"after": {"step": "a", "wait": "1h"}}}, id="other"))
    platform.runs(platform.send())
    platform.api("DELETE", "/v1/functions/f?cancel=true")
    assert {run["function_id"]: run["status"] for run in platform.runs()} == {"f": "cancelled", "other": "running"}


def test_a_deleted_function_that_is_pushed_again_gets_the_next_version_number(platform: Platform) -> None:
    platform.deploy(ONE)
    platform.deploy(TWO)
    change(platform, "pause")
    platform.send()
    platform.api("DELETE", "/v1/functions/f")
    platform.settle()
    assert platform.deploy(function({"a": {}, "c": "a"})) == 3
    assert versions_of(platform, platform.send()) == [3]
    assert len(platform.runs()) == 1  # events kept before the deletion are dropped


def test_deleting_again_changes_nothing(platform: Platform) -> None:
    platform.deploy(ONE)
    assert platform.api("DELETE", "/v1/functions/f") == platform.api("DELETE", "/v1/functions/f")
    for how in ("promote", "rollback", "pause", "resume"):
        with pytest.raises(Refused) as refused:
            change(platform, how)
        assert refused.value.status == 409


# --- guard -----------------------------------------------------------------------------------------------------------


def run_on_canary(platform: Platform, count: int, **script_of_two: Json) -> None:
    for n in range(count):
        platform.send(user={"external_id": n}, data=script(**script_of_two))
    platform.settle()


def test_a_guarded_canary_that_fails_is_rolled_back_automatically(platform: Platform) -> None:
    platform.deploy(function(id="listener", on="stepwell/function.rolled_back"))
    two_versions(platform, 0.5, guard=True)
    run_on_canary(platform, 60, b={"status": 400})  # version 1 does not have this step
    assert platform.api("GET", "/v1/functions/f/routing")["canary"]["guarded"] is True
    platform.travel("2m")
    assert platform.api("GET", "/v1/functions/f/routing")["canary"] is None
    (event,) = platform.events("stepwell/function.rolled_back")
    assert {name: event["data"][name] for name in ("function_id", "version", "to")} == {
        "function_id": "f",
        "version": 2,
        "to": 1,
    }
    assert "runs of the canary failed (100%)" in event["data"]["reason"]
    assert len([run for run in platform.runs(event["id"]) if run["function_id"] == "listener"]) == 1
    assert versions_of(platform, platform.send()) == [1]


def test_a_guarded_canary_that_succeeds_is_promoted_step_by_step(platform: Platform) -> None:
    two_versions(platform, 0.5, guard=True)
    run_on_canary(platform, 60)
    platform.travel("5m")
    assert platform.api("GET", "/v1/functions/f/routing")["canary"]["weight"] == 0.5  # too early for the next step
    run_on_canary(platform, 30)
    platform.travel("6m")
    routing = platform.api("GET", "/v1/functions/f/routing")
    assert (routing["live"], routing["canary"]) == (2, None)
    assert platform.events("stepwell/function.rolled_back") == []
