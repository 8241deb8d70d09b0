"""Users: how events belong to users, what their timelines contain, and how users are erased."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import pytest

from tests.behaviour.words import START, Json, Platform, Refused, function, has, moment, script

NOW = "2026-06-01T10:00:30.000Z"
IDENTIFY = "stepwell/identify"


def user(platform: Platform, user_id: str) -> Json:
    found: list[Json] = platform.api("GET", f"/v1/users?id={quote(user_id, safe='')}")["data"]
    assert len(found) == 1, f"there is no user {user_id!r}"
    return found[0]


def ids(platform: Platform, user_id: str) -> dict[str, list[str]]:
    """The user's ids of each kind."""
    return {kind: item for kind, item in user(platform, user_id)["ids"].items() if item}


def timeline(platform: Platform, user_id: str, limit: int = 1000) -> list[Json]:
    """All pages of the user's timeline."""
    path, entries, after = f"/v1/users/timeline?id={quote(user_id, safe='')}&limit={limit}", [], ""
    while True:
        page = platform.api("GET", path + after)
        assert len(page["data"]) <= limit
        entries += page["data"]
        if page["next"] is None:
            return entries
        after = f"&after={page['next']}"


def erase(platform: Platform, user_id: str) -> Json:
    answer: Json = platform.api("DELETE", f"/v1/users?id={quote(user_id, safe='')}")
    return answer


def is_unknown(platform: Platform, user_id: str) -> bool:
    with pytest.raises(Refused, match=re.escape(f"there is no user {user_id!r}")):
        timeline(platform, user_id)
    return platform.api("GET", f"/v1/users?id={quote(user_id, safe='')}") == {"data": [], "next": None}


def everything(platform: Platform) -> str:
    """Everything that the API returns."""
    paths = ["/v1/users", "/v1/events", "/v1/runs"]
    found = [platform.api("GET", f"{path}?limit=1000")["data"] for path in paths]
    return str([found, platform.runs()])


# --- identity -------------------------------------------------------------------------------------------------------


def test_an_event_belongs_to_the_first_id_that_its_user_has(platform: Platform) -> None:
    platform.send(user={"email": "ada@b.c", "external_id": "u-1", "id": 7, "phone": "+1"})
    fields = user(platform, "u-1")
    assert fields["id"] == "u-1"
    assert fields["ids"] == {"external_id": ["u-1"], "id": ["7"], "email": ["ada@b.c"], "phone": ["+1"]}
    assert (fields["traits"], fields["known_since"], fields["first_seen"], fields["last_seen"]) == ({}, NOW, NOW, NOW)


@pytest.mark.parametrize("user_id", ["u-1", "7", "ada@b.c", "+1"])
def test_a_user_is_found_by_any_id(platform: Platform, user_id: str) -> None:
    platform.send(user={"email": "ada@b.c", "external_id": "u-1", "id": 7, "phone": "+1"})
    assert user(platform, user_id)["id"] == "u-1"


def test_a_user_with_one_id_and_no_traits_is_found_and_is_in_no_list(platform: Platform) -> None:
    platform.send(user={"id": "ada"})
    platform.travel("1h")
    platform.send(user={"id": "ada"})
    fields = user(platform, "ada")
    assert (fields["id"], ids(platform, "ada"), fields["traits"]) == ("ada", {"id": ["ada"]}, {})
    assert (fields["first_seen"], fields["last_seen"]) == (NOW, "2026-06-01T11:00:30.000Z")
    assert platform.api("GET", "/v1/users") == {"data": [], "next": None}


def test_the_last_accepted_value_of_each_trait_counts(platform: Platform) -> None:
    platform.send(user={"id": "ada", "plan": "free", "city": "Rome"}, ts=2)
    platform.travel("1h")
    platform.send(user={"id": "ada", "plan": "pro"}, ts=1)
    platform.send(user={"id": "ada", "plan": "free"})
    platform.send(IDENTIFY, {"traits": {"plan": {"name": "pro"}}}, user={"id": "ada"})
    later = "2026-06-01T11:00:30.000Z"
    expected = {"city": {"value": "Rome", "at": NOW}, "plan": {"value": {"name": "pro"}, "at": later}}
    assert user(platform, "ada")["traits"] == expected


def test_the_end_of_a_run_does_not_restore_old_traits(platform: Platform) -> None:
    platform.deploy(function({"a": {"after": {"step": "$trigger", "wait": "1h"}}}))
    platform.deploy(function(id="watcher", on="stepwell/run.completed"))
    platform.send(user={"id": "ada", "plan": "free"})
    platform.send("other", user={"id": "ada", "plan": "pro"})
    platform.travel("2h")
    assert len(platform.events("stepwell/run.completed")) == 1
    assert user(platform, "ada")["traits"]["plan"] == {"value": "pro", "at": NOW}


def test_an_event_with_ids_of_two_users_merges_them(platform: Platform) -> None:
    platform.send(user={"id": "anon-1", "email": "ada@b.c", "city": "Rome"})
    platform.send(user={"id": "anon-2", "phone": "+1", "plan": "pro"})
    assert user(platform, "ada@b.c")["id"] == "anon-1"
    platform.send(user={"external_id": "u-1", "email": "ada@b.c"})
    platform.send(user={"external_id": "u-1", "phone": "+1"})
    fields = user(platform, "anon-2")
    assert fields["id"] == "u-1"
    expected = {"external_id": ["u-1"], "id": ["anon-1", "anon-2"], "email": ["ada@b.c"], "phone": ["+1"]}
    assert fields["ids"] == expected
    assert {name: trait["value"] for name, trait in fields["traits"].items()} == {"city": "Rome", "plan": "pro"}
    (listed,) = platform.api("GET", "/v1/users")["data"]
    assert (listed["id"], listed["ids"]) == ("u-1", expected)


def test_identify_can_replace_an_id(platform: Platform) -> None:
    platform.send(user={"id": "anon"})
    platform.send(IDENTIFY, {"previous_id": "anon"}, user={"external_id": "u-1"})
    assert ids(platform, "anon") == {"external_id": ["u-1"], "id": ["anon"]}


def test_an_id_that_two_external_ids_share_stays_with_the_first(platform: Platform) -> None:
    platform.send(user={"external_id": "u-1", "email": "team@b.c"})
    platform.send(user={"external_id": "u-2", "email": "team@b.c", "phone": "+2"})
    platform.send(IDENTIFY, {"previous_id": {"email": "team@b.c"}}, user={"external_id": "u-3", "phone": "+3"})
    assert ids(platform, "team@b.c") == {"external_id": ["u-1"], "email": ["team@b.c"]}
    assert ids(platform, "u-2") == {"external_id": ["u-2"], "phone": ["+2"]}
    assert ids(platform, "+3") == {"external_id": ["u-3"], "phone": ["+3"]}


def test_only_previous_id_merges_two_external_ids(platform: Platform) -> None:
    platform.send(user={"external_id": "old", "plan": "pro"})
    platform.send(IDENTIFY, {"previous_id": {"external_id": "old"}}, user={"external_id": "new"})
    assert ids(platform, "old") == ids(platform, "new") == {"external_id": ["new", "old"]}
    assert user(platform, "old")["traits"]["plan"]["value"] == "pro"


def test_a_duplicate_event_does_not_change_a_user(platform: Platform) -> None:
    platform.send(user={"id": "ada", "plan": "pro"}, id="one")
    platform.send(user={"id": "ada", "plan": "free"})
    platform.send(user={"id": "ada", "plan": "pro"}, id="one")
    assert user(platform, "ada")["traits"]["plan"]["value"] == "free"


HOSTILE: list[Json] = [
    {"id": True, "email": "x@b.c"},
    {"id": ["a"], "email": {"a": 1}, "phone": "+1"},
    {"id": "", "external_id": None, "email": "x@b.c", "phone": 7},
    {"external_id": "u", "email": "x" * 300},
    {"external_id": "u", "text": "x" * 100_000, "n" * 1000: 1, "": None},
    {"external_id": "u", **{f"t{n}": n for n in range(500)}},
    {"external_id": "../../u#1", "id": "ü\U0001f680\u0000", "email": "%2F?a=b"},
    {"plan": "pro", "traits": {"a": 1}},
]


@pytest.mark.parametrize("strange", HOSTILE)
def test_an_event_is_accepted_whatever_its_user_contains(platform: Platform, strange: Json) -> None:
    platform.deploy(function())
    (run,) = platform.runs(platform.send(user=strange))
    assert run["status"] == "completed"
    if run["user"] is not None:
        fields = user(platform, run["user"])
        assert any(run["user"] in some for some in fields["ids"].values())
        assert len(fields["traits"]) <= 100
    assert len(str(platform.api("GET", "/v1/users"))) < 10_000


@pytest.mark.parametrize(
    "data", [{"traits": "x", "previous_id": 1.5}, {"previous_id": {"id": {}}}, {"traits": {"a": [[]]}, "more": 1}]
)
def test_identify_is_accepted_whatever_it_contains(platform: Platform, data: Json) -> None:
    platform.send(IDENTIFY, data, user={"id": "ada"})
    assert ids(platform, "ada") == {"id": ["ada"]}


def test_users_are_known_after_a_restart(platform: Platform) -> None:
    platform.send(user={"id": "ada", "email": "ada@b.c"})
    platform.restart()
    platform.send(user={"phone": "+1", "email": "ada@b.c"})
    assert ids(platform, "+1") == {"id": ["ada"], "email": ["ada@b.c"], "phone": ["+1"]}


# --- lists ----------------------------------------------------------------------------------------------------------


def test_users_are_listed_newest_first_in_pages(platform: Platform) -> None:
    for n in range(5):
        platform.send(user={"id": f"u{n}", "n": n})
        platform.travel("1s")
    platform.send(user={"id": "u0", "more": 1})
    first = platform.api("GET", "/v1/users?limit=3")
    second = platform.api("GET", f"/v1/users?limit=3&after={first['next']}")
    assert [item["id"] for item in [*first["data"], *second["data"]]] == ["u4", "u3", "u2", "u1", "u0"]
    assert second["next"] is None
    for path in ("/v1/users?limit=0", "/v1/users?after=x", "/v1/users?query=u"):
        with pytest.raises(Refused, match="400"):
            platform.api("GET", path)


def test_events_and_runs_are_found_by_any_id_of_their_user(platform: Platform) -> None:
    platform.deploy(function())
    first = platform.send(user={"id": "anon"})
    second = platform.send(user={"external_id": "u-1", "id": "anon"})
    platform.send(user={"id": "other"})
    platform.settle()
    for name in ("anon", "u-1"):
        events = platform.api("GET", f"/v1/events?user={name}&name=go")["data"]
        assert [event["id"] for event in events] == [second, first]
        assert [run["event_id"] for run in platform.api("GET", f"/v1/runs?user={name}")["data"]] == [second, first]


# --- timelines ------------------------------------------------------------------------------------------------------


def test_a_timeline_has_events_runs_and_the_ends_of_steps_in_one_order(platform: Platform) -> None:
    retries = {"attempts": 1, "backoff": {"initial": "1m", "jitter": 0}}
    platform.deploy(function({"a": {"retries": retries}, "b": {"after": {"step": "a", "wait": "1h"}}}))
    first = platform.send(data=script(a=[{"raise": "no"}, {}]), user={"id": "anon"})
    platform.travel("10m")
    second = platform.send("other", user={"external_id": "u-1", "id": "anon"})
    platform.send("other", user={"id": "somebody else"})
    platform.travel("2h")
    (run,) = platform.runs(first)
    items = [
        (e["type"], e.get("name") or e.get("step"), e.get("attempt"), e["at"][11:19]) for e in timeline(platform, "u-1")
    ]
    ended = [entry for entry in items if entry[1] == "stepwell/run.completed"]
    assert len(ended) == (platform.name == "local")  # AWS stores it only if a function needs it
    assert [entry for entry in items if entry not in ended] == [
        ("step", "b", 1, "11:01:30"),
        ("event", "other", None, "10:10:30"),
        ("step", "a", 2, "10:01:30"),
        ("step", "a", 1, "10:00:30"),
        ("run", None, None, "10:00:30"),
        ("event", "go", None, "10:00:30"),
    ]
    entries = [item for item in timeline(platform, "anon") if item.get("name") != "stepwell/run.completed"]
    assert entries[3]["error"] == {"kind": "exception", "message": "RuntimeError: no"}
    assert entries[1]["event_id"] == second
    assert entries[4] == {
        "type": "run",
        "at": NOW,
        "run_id": run["id"],
        "function_id": "f",
        "function_version": 1,
        "event_id": first,
        "status": "completed",
        "ended_at": run["ended_at"],
        "rerun_of": None,
        "replay": None,
    }


def test_a_timeline_leaves_out_what_a_rerun_keeps(platform: Platform) -> None:
    platform.deploy(function({"a": {}, "b": {"after": "a"}}))
    (run,) = platform.runs(platform.send(user={"id": "ada"}))
    again = platform.api("POST", f"/v1/runs/{run['id']}/rerun", {"from_step": "b"})
    platform.settle()
    attempts = [(e["run_id"], e["step"], e["attempt"]) for e in timeline(platform, "ada") if e["type"] == "step"]
    assert sorted(attempts) == sorted([(run["id"], "a", 1), (run["id"], "b", 1), (again["id"], "b", 1)])


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_a_timeline_has_the_same_entries_in_pages_of_any_size(platform: Platform, limit: int) -> None:
    platform.deploy(function({"a": {}, "b": {"after": "a"}, "c": {"after": "b"}}))
    for n in range(3):
        platform.send(user={"id": "ada", "email": f"{n}@b.c"} if n else {"email": "1@b.c"})
        platform.settle()
    whole = timeline(platform, "ada")
    assert len([entry for entry in whole if entry["type"] != "event"]) == 12
    assert timeline(platform, "ada", limit) == whole


@pytest.mark.parametrize("after", ["x", "czE", "LTEuMC4wLjAuMA", "MS4yLjM", "OTk5OTk5OTk5OTk5OTk5OTk5OS4wLjAuMC4w"])
def test_an_invalid_timeline_cursor_is_refused(platform: Platform, after: str) -> None:
    platform.send(user={"id": "ada"})
    with pytest.raises(Refused, match="is not the `next` of a timeline"):
        platform.api("GET", f"/v1/users/ada/timeline?after={after}")


def test_the_same_text_in_different_kinds_of_ids_means_two_users(platform: Platform) -> None:
    platform.deploy(function())
    platform.send(user={"external_id": "7", "plan": "pro"})
    platform.send("other", user={"id": "7", "city": "Rome"})
    platform.settle()
    names = {entry.get("name") for entry in timeline(platform, "7") if entry["type"] == "event"}
    assert names - {"stepwell/run.completed"} == {"go"}
    erase(platform, "7")
    assert ids(platform, "7") == {"id": ["7"]}
    assert platform.events("other")[0]["user"] == {"id": "7", "city": "Rome"}


# --- erasure --------------------------------------------------------------------------------------------------------

SECRET = "very secret"


def test_an_erasure_deletes_the_data_of_a_user(platform: Platform) -> None:
    steps: Any = {
        "a": {},
        "b": {"after": {"step": "a", "on": "always"}},
        "c": {"after": {"step": "b", "if": "!has(response.x)"}},
    }
    platform.deploy(function(steps))
    acts = script(a={"raise": SECRET, "log": SECRET}, b={"return": {"x": SECRET * 100}}) | {"text": SECRET}
    first = platform.send(data=acts, user={"id": SECRET, "email": "ada@b.c", "name": SECRET})
    second = platform.send("other", {"text": SECRET}, user={"email": "ada@b.c"})
    kept = platform.send("other", {"text": "kept"}, user={"email": "bob@b.c", "city": "Rome"})
    (before,) = platform.runs(first)
    answer = erase(platform, "ada@b.c")
    assert (answer["id"], answer["done"]) == (SECRET, True)
    events = 2 + len(platform.events("stepwell/run.completed")) * (platform.name == "local")
    assert answer["erased"] == {"events": events, "runs": 1, "runs_cancelled": 0, "attempts": 2}
    assert is_unknown(platform, SECRET)
    assert is_unknown(platform, "ada@b.c")
    assert SECRET not in everything(platform)
    assert "ada@b.c" not in everything(platform)
    event = platform.event(first)
    assert (event["id"], event["name"], event["ts"], event["erased"]) == (first, "go", platform.event(kept)["ts"], True)
    assert (event["data"], event["user"], platform.event(second)["data"]) == ({}, {}, {})
    (run,) = platform.runs(first)
    assert (run["id"], run["status"], run["user"]) == (before["id"], before["status"], None)
    assert [step["status"] for step in run["steps"].values()] == [step["status"] for step in before["steps"].values()]
    assert run["steps"]["a"]["error"]["kind"] == "exception"
    assert platform.event(kept)["data"] == {"text": "kept"}
    assert ids(platform, "bob@b.c") == {"email": ["bob@b.c"]}


def test_open_runs_of_a_user_are_cancelled_before_the_erasure(platform: Platform) -> None:
    paid = {"event": "paid", "match": "async.data.order == event.data.order", "ttl": "3d"}
    steps: Any = {"a": {}, "b": {"after": {"step": "$trigger", "async": paid}}}
    platform.deploy(function(steps))
    event = platform.send(data={"order": SECRET, **script(a={"wait_for": "/nonexistent"})}, user={"id": "ada"})
    run_id = platform.run_of(event)
    platform.wait(run_id, has("a", "running"))
    assert erase(platform, "ada")["erased"]["runs_cancelled"] == 1
    platform.send("paid", {"order": SECRET})
    platform.settle()
    run = platform.run(run_id)
    assert (run["status"], run["user"], run["steps"]["b"]["status"]) == ("cancelled", None, "cancelled")
    assert SECRET not in str([run, platform.event(event)])


def test_an_event_that_is_erased_while_its_function_is_paused_starts_nothing_on_resume(platform: Platform) -> None:
    platform.deploy(function())
    platform.api("POST", "/v1/functions/f/pause")
    platform.send(user={"id": "ada"})
    other = platform.send(user={"id": "bob"})
    erase(platform, "ada")
    platform.api("POST", "/v1/functions/f/resume")
    assert [run["event_id"] for run in platform.runs()] == [other]


def test_an_erased_event_is_still_a_duplicate_and_cannot_run_again(platform: Platform) -> None:
    platform.deploy(function())
    event = platform.send(user={"id": "ada", "plan": "pro"}, id="one")
    (run,) = platform.runs(event)
    erase(platform, "ada")
    platform.send(user={"id": "ada", "plan": "pro"}, id="one")
    assert len(platform.runs("one")) == 1
    assert is_unknown(platform, "ada")
    with pytest.raises(Refused, match=r"409.*was erased"):
        platform.api("POST", f"/v1/runs/{run['id']}/rerun")


def test_a_user_who_returns_after_an_erasure_starts_empty(platform: Platform) -> None:
    platform.send(user={"id": "ada", "email": "ada@b.c", "plan": "pro"})
    erase(platform, "ada")
    platform.travel("1h")
    platform.send(user={"id": "ada", "email": "ada@b.c"})
    fields = user(platform, "ada@b.c")
    assert (fields["id"], fields["traits"]) == ("ada", {})
    assert moment(fields["first_seen"]) > START


def test_an_unknown_user_is_not_found_and_not_erased(platform: Platform) -> None:
    for method, path in (
        ("GET", "/nobody"),
        ("GET", "/nobody/timeline"),
        ("GET", "/timeline?id=nobody"),
        ("DELETE", "/nobody"),
        ("DELETE", "?id=nobody"),
    ):
        with pytest.raises(Refused, match="404"):
            platform.api(method, f"/v1/users{path}")
    with pytest.raises(Refused, match=r"400: .*the user is missing"):
        platform.api("DELETE", "/v1/users")


IDS = [
    "a?b",
    "a/b",
    "a/",
    "/",
    "..",
    ".",
    "%2F",
    "a%2Fb",
    "a#b",
    "%",
    "a b",
    "a+b",
    "a&id=b",
    "ünï \U0001f680",
    "a;b",
    "a=b",
]


def test_an_id_can_contain_any_text_and_matches_only_its_user(platform: Platform) -> None:
    others = ["a", "b", "/", "a b c", "timeline", "%"]
    for name in {*IDS, *others}:
        platform.send("go", user={"external_id": name, "name": name}, id=f"e {name}")
    for name in IDS:
        assert user(platform, name)["ids"]["external_id"] == [name]
        assert [entry["event_id"] for entry in timeline(platform, name)] == [f"e {name}"]
        found = platform.api("GET", f"/v1/events?id={quote(f'e {name}', safe='')}")["data"]
        assert [event["user"]["external_id"] for event in found] == [name]
        assert platform.api("GET", f"/v1/runs?event={quote(f'e {name}', safe='')}")["data"] == []
    left = {*IDS, *others}
    for name in IDS:
        assert erase(platform, name)["erased"]["events"] == 1
        left.remove(name)
        known = [found["id"] for found in platform.api("GET", "/v1/users?limit=1000")["data"]]
        assert sorted(known) == sorted(left)


@pytest.mark.parametrize("path", ["a%3Fb", "a%2Fb", "a%252Fb", "a%23b", "%25", "a%20b"])
def test_an_id_that_a_proxy_could_change_is_refused_in_a_path(platform: Platform, path: str) -> None:
    platform.send("go", user={"external_id": "a", "name": "x"})
    for method, rest in (("GET", ""), ("GET", "/timeline"), ("DELETE", "")):
        with pytest.raises(Refused, match=r"40[04]"):
            platform.api(method, f"/v1/users/{path}{rest}")
    assert user(platform, "a")


def test_a_query_for_one_id_accepts_no_other_filters(platform: Platform) -> None:
    for path in ("events?id=x&name=y", "users?id=x&limit=5", "runs?event=x&user=y"):
        with pytest.raises(Refused, match=r"400: .* cannot be combined with"):
            platform.api("GET", f"/v1/{path}")


def test_a_long_history_is_erased_completely(platform: Platform) -> None:
    platform.deploy(function())
    for n in range(3):
        user = {"id": "ada", "email": f"{n}@b.c"}
        platform.api("POST", "/e", [{"name": "go", "user": user, "data": {"text": SECRET}} for _ in range(30)])
    platform.settle()
    answers = [erase(platform, "1@b.c")]
    while not answers[-1]["done"]:
        answers.append(erase(platform, "1@b.c"))
    assert [sum(answer["erased"][what] for answer in answers) for what in ("runs", "attempts")] == [90, 90]
    assert SECRET not in everything(platform)
    assert platform.api("GET", "/v1/users") == {"data": [], "next": None}
