"""Triggers: which functions an event starts, and which events are accepted."""

from __future__ import annotations

import pytest

from tests.behaviour.words import SCRIPTED, Json, Platform, Refused, function, script, statuses


def started(platform: Platform, event_id: str) -> list[str]:
    return sorted(run["function_id"] for run in platform.runs(event_id))


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "starts"),
    [
        ("order/placed", ["all", "exact", "prefix", "short-prefix"]),
        ("order/placed.twice", ["all", "prefix", "short-prefix"]),
        ("order/", ["all", "prefix", "short-prefix"]),  # the prefix itself
        ("orders/placed", ["all", "short-prefix"]),
        ("Order/placed", ["all"]),
        ("order", ["all", "short-prefix"]),
    ],
)
def test_a_trigger_is_an_exact_name_or_a_prefix(platform: Platform, name: str, starts: list[str]) -> None:
    patterns = {"exact": "order/placed", "prefix": "order/*", "short-prefix": "ord*", "all": "*"}
    for function_id, pattern in patterns.items():
        platform.deploy(function(id=function_id, on=pattern))
    assert started(platform, platform.send(name)) == starts


def test_a_wildcard_never_matches_engine_events(platform: Platform) -> None:
    platform.deploy(function(on="go", id="ends"))
    platform.deploy(function(on=[{"event": "*"}, {"event": "s*"}, {"event": "stepwell*"}], id="every"))
    event = platform.send("go")
    assert started(platform, event) == ["ends", "every"]
    assert len(platform.runs()) == 2
    assert len(platform.events("stepwell/run.completed")) == 2


def test_a_wildcard_under_the_reserved_prefix_is_refused(platform: Platform) -> None:
    with pytest.raises(Refused) as refused:
        platform.deploy(function(on="stepwell/*"))
    assert refused.value.errors[0]["pointer"] == "/triggers/0/event"


def test_stepwell_identify_can_be_sent_and_triggers_by_its_exact_name(platform: Platform) -> None:
    platform.deploy(function(on="stepwell/identify", id="exact"))
    platform.deploy(function(on="*", id="every"))
    assert started(platform, platform.send("stepwell/identify", user={"external_id": "7"})) == ["exact"]


@pytest.mark.parametrize("name", ["stepwell/run.completed", "stepwell/scheduled.timer", "stepwell/", "stepwell/x"])
def test_senders_cannot_use_reserved_names(platform: Platform, name: str) -> None:
    with pytest.raises(Refused) as refused:
        platform.send(name)
    assert refused.value.status == 400
    assert [(error["index"], error["pointer"]) for error in refused.value.errors] == [(0, "/name")]


def test_a_trigger_can_contain_the_type_of_its_event(platform: Platform) -> None:
    schema = {"type": "object", "properties": {"plan": {"enum": ["free", "pro", None]}, "x": {"default": None}}}
    trigger = {"event": "user/signed.up", "expression": "data.plan == 'pro'"}
    definition = {"format": "json-schema", "synced": True, "def": schema}
    platform.deploy(function(on=[{**trigger, "definition": definition}], id="typed"))
    assert started(platform, platform.send("user/signed.up", data={"plan": "pro"})) == ["typed"]
    assert started(platform, platform.send("user/signed.up", data={"plan": "free"})) == []
    assert platform.api("GET", "/v1/functions/typed")["triggers"][0]["definition"] == definition


@pytest.mark.parametrize(
    "definition",
    [
        {"def": {"type": "strng"}},
        {"def": {"$ref": "https://example.com/x.json"}},
        {"format": "cue", "def": {}},
        {"def": 3},
    ],
)
def test_a_trigger_with_a_broken_type_is_refused(platform: Platform, definition: Json) -> None:
    with pytest.raises(Refused):
        platform.deploy(function(on=[{"event": "a", "definition": definition}]))


def test_one_event_starts_every_function_that_it_triggers(platform: Platform) -> None:
    platform.deploy(function(on="user/signed.up", id="one"))
    platform.deploy(function(on="user/*", id="two"))
    platform.deploy(function(on="user/left", id="three"))
    assert started(platform, platform.send("user/signed.up")) == ["one", "two"]


def test_several_triggers_that_match_start_one_run(platform: Platform) -> None:
    triggers: list[Json] = [
        {"event": "go"},
        {"event": "g*"},
        {"event": "*"},
        {"event": "go", "expression": "data.n == 1"},
        {"event": "go", "expression": "data.n == 2"},
    ]
    platform.deploy(function(on=triggers))
    event = platform.send(data={"n": 1})
    assert len(platform.runs(event)) == 1
    assert platform.event(event)["not_started"] == []


def test_each_trigger_of_a_function_starts_it(platform: Platform) -> None:
    platform.deploy(function(on=[{"event": "a"}, {"event": "b"}]))
    assert [len(platform.runs(platform.send(name))) for name in ("a", "b", "c")] == [1, 1, 0]


# --- expressions -----------------------------------------------------------------------------------------------------


def test_an_expression_filters_by_the_event(platform: Platform) -> None:
    expressions = {
        "event.name == 'go'": True,
        "event.data.n == 1 && event.user.id == 'u'": True,
        "data.n == 1 && user.id == 'u'": True,  # the short forms
        "event.v == null && event.id != '' && event.ts > 0": True,
        "size(data.list) == 2 && 'x' in data.list": True,
        "data.n == 2": False,
        "has(data.missing)": False,
    }
    for i, expression in enumerate(expressions):
        platform.deploy(function(id=f"f{i}", on={"event": "go", "expression": expression}))
    event = platform.send(data={"n": 1, "list": ["x", "y"]}, user={"id": "u"})
    holds = dict(zip((f"f{i}" for i in range(len(expressions))), expressions.values(), strict=True))
    assert started(platform, event) == [function_id for function_id, starts in holds.items() if starts]
    assert platform.event(event)["not_started"] == [
        {"function_id": "f5", "expression": "data.n == 2", "problem": None},
        {"function_id": "f6", "expression": "has(data.missing)", "problem": None},
    ]


@pytest.mark.parametrize(
    ("created_at", "starts"), [("2019-12-31T23:59:59Z", False), ("2020-01-01", False), ("2020-01-02", True)]
)
def test_dates_are_compared_as_in_the_contract(platform: Platform, created_at: str, starts: bool) -> None:
    platform.deploy(function(on={"event": "user/signed.up", "expression": "user.created_at > '2020-01-01'"}))
    event = platform.send("user/signed.up", user={"created_at": created_at})
    assert started(platform, event) == (["f"] if starts else [])


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("data.missing == 1", "missing"),  # a missing key
        ("data.n > 'x'", "does not work"),  # a type error
        ("data.text.size() > 0 && data.n", "does not work"),
        ("data.text", "string"),  # truthy is not true
        ("data.n", "int"),
        ("data.nothing", "null"),
    ],
)
def test_only_true_is_a_match_and_the_event_shows_the_reason_otherwise(
    platform: Platform, expression: str, why: str
) -> None:
    platform.deploy(function(on={"event": "go", "expression": expression}))
    event = platform.send(data={"n": 1, "text": "true", "nothing": None})
    assert platform.runs(event) == []
    (missed,) = platform.event(event)["not_started"]
    assert (missed["function_id"], missed["expression"]) == ("f", expression)
    assert why in missed["problem"]


@pytest.mark.parametrize(
    "expression",
    [
        "data.list.exists(w, data.text.contains(w))",
        "data.text.matches('a[ab]{1000}x') || data.text.matches('(((z?){10}){10}){10}x')",
        "data.list.all(w, data == event.data)",
    ],
)
def test_an_expression_that_is_too_expensive_is_no_match_and_shows_the_reason(
    platform: Platform, expression: str
) -> None:
    platform.deploy(function(on={"event": "go", "expression": expression}))
    event = platform.send(data={"list": ["zzzz"] * 9000, "text": "z z " * 45_000})
    assert platform.runs(event) == []
    (missed,) = platform.event(event)["not_started"]
    assert missed["problem"].startswith("the data is too large for this expression")


def test_of_many_functions_only_the_matching_ones_start_and_the_others_are_shown(platform: Platform) -> None:
    for number in range(24):
        platform.deploy(function(id=f"f{number:02}", on={"event": "go", "expression": f"data.kind == {number}"}))
    platform.deploy(function(id="both", on={"event": "go", "expression": "data.kind in [3, 5] && data.n > 1"}))
    three, nothing = platform.send(data={"kind": 3.0, "n": 2}), platform.send(data={"n": 2})
    five = platform.send(data={"kind": 5})
    assert [started(platform, event) for event in (three, nothing, five)] == [["both", "f03"], [], ["f05"]]
    shown = {event: platform.event(event)["not_started"] for event in (three, nothing, five)}
    assert {miss["function_id"]: miss["problem"] for miss in shown[three]} == {
        f"f{number:02}": None for number in range(24) if number != 3
    }
    assert len(shown[nothing]) == 25
    assert {miss["problem"] for miss in shown[nothing]} == {'there is no key "kind"'}
    problems = {miss["function_id"]: miss["problem"] for miss in shown[five] if miss["problem"] is not None}
    assert (len(shown[five]), problems) == (24, {"both": 'there is no key "n"'})


def test_every_trigger_that_did_not_match_is_shown(platform: Platform) -> None:
    platform.deploy(function(on=[{"event": "go", "expression": "data.x"}, {"event": "g*", "expression": "false"}]))
    event = platform.send()
    assert platform.runs(event) == []
    missed = platform.event(event)["not_started"]
    assert [(miss["expression"], miss["problem"] is None) for miss in missed] == [("data.x", False), ("false", True)]


def test_an_error_in_one_trigger_does_not_stop_another(platform: Platform) -> None:
    platform.deploy(function(on=[{"event": "go", "expression": "data.missing"}, {"event": "go"}]))
    event = platform.send()
    assert len(platform.runs(event)) == 1
    assert platform.event(event)["not_started"] == []


def test_an_event_without_data_and_user_gets_empty_objects(platform: Platform) -> None:
    platform.deploy(function(on={"event": "go", "expression": "data == {} && user == {} && event.data == {}"}))
    (event,) = platform.send_raw(b'{"name": "go"}')
    assert started(platform, event) == ["f"]
    kept = platform.event(event)
    assert (kept["data"], kept["user"], kept["v"]) == ({}, {}, None)


@pytest.mark.parametrize(("sent", "expression"), [(None, "event.v == null"), ("2026-06.1", "event.v == '2026-06.1'")])
def test_the_version_of_an_event_is_a_text_or_null(platform: Platform, sent: str | None, expression: str) -> None:
    platform.deploy(function(on={"event": "go", "expression": expression}))
    event = platform.send(v=sent)
    assert started(platform, event) == ["f"]
    assert platform.event(event)["v"] == sent


# --- envelopes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "index", "pointer"),
    [
        (b'{"name": "go", "data": []}', 0, "/data"),
        (b'{"name": "go", "user": "me"}', 0, "/user"),
        (b'{"name": "go", "ts": "now"}', 0, "/ts"),
        (b'{"name": "go", "ts": 1.5}', 0, "/ts"),
        (b'{"name": "go", "ts": true}', 0, "/ts"),
        (b'{"name": "go", "v": 1}', 0, "/v"),
        (b'{"name": "go", "id": 7}', 0, "/id"),
        (b'{"name": "go", "id": ""}', 0, "/id"),
        (b'{"name": "go", "id": "cron:f:29671800"}', 0, "/id"),  # the id of a tick
        (b'{"name": "go", "id": "run:kjebjc6zbsjvtntydg7nrpccaq"}', 0, "/id"),
        (b'{"name": 7}', 0, "/name"),
        (b'{"name": ""}', 0, "/name"),
        (b"{}", 0, "/name"),
        (b'{"name": "go", "a/b~": 1}', 0, "/a~1b~0"),  # an unknown field, escaped as in RFC 6901
        (b'[{"name": "go"}, {"name": "go", "data": 1}]', 1, "/data"),
        (b"[]", 0, ""),
        (b'"go"', 0, ""),
        (b"{", 0, ""),
        (b'{"name": "go", "data": {"n": 18446744073709551616}}', 0, "/data/n"),
    ],
)
def test_an_invalid_event_is_refused_with_a_pointer(platform: Platform, body: bytes, index: int, pointer: str) -> None:
    platform.deploy(function(on="*"))
    with pytest.raises(Refused) as refused:
        platform.send_raw(body)
    assert refused.value.status == 400
    assert [(error["index"], error["pointer"]) for error in refused.value.errors] == [(index, pointer)]
    assert platform.runs() == []
    assert platform.events() == []


def test_every_error_of_a_request_is_reported(platform: Platform) -> None:
    with pytest.raises(Refused) as refused:
        platform.send_raw(b'[{"name": "", "data": 1}, {"name": "go"}, {"ts": -1, "name": "go"}]')
    places = [(error["index"], error["pointer"]) for error in refused.value.errors]
    assert places == [(0, "/name"), (0, "/data"), (2, "/ts")]


def test_a_request_can_contain_many_events(platform: Platform) -> None:
    platform.deploy(function(on="a", id="fa"))
    platform.deploy(function(on="b", id="fb"))
    ids = platform.send_raw(b'[{"name": "a"}, {"name": "b"}, {"name": "a"}]')
    assert len(set(ids)) == 3
    assert [started(platform, event) for event in ids] == [["fa"], ["fb"], ["fa"]]
    assert [event["id"] for event in platform.events() if not event["name"].startswith("stepwell/")] == ids


# --- duplicates ------------------------------------------------------------------------------------------------------


def test_an_event_sent_twice_starts_one_run_and_returns_the_same_id(platform: Platform) -> None:
    platform.deploy(function())
    assert platform.send(id="once", data={"n": 1}) == "once"
    first = platform.runs()
    assert platform.send(id="once", data={"n": 2}) == "once"
    assert platform.runs() == first
    assert platform.event("once")["data"] == {"n": 1}


def test_an_event_twice_in_one_request_starts_one_run(platform: Platform) -> None:
    platform.deploy(function())
    ids = platform.send_raw(b'[{"name": "go", "id": "x"}, {"name": "go", "id": "x"}, {"name": "go", "id": "y"}]')
    assert ids == ["x", "x", "y"]
    assert [run["event_id"] for run in platform.runs()] == ["x", "y"]


@pytest.mark.parametrize("how", ["travel", "restart"])
def test_duplicates_are_detected_for_24_hours(platform: Platform, how: str) -> None:
    platform.deploy(function())
    platform.send(id="once")
    getattr(platform, how)("24h")
    platform.send(id="once")
    assert len(platform.runs()) == 1


def test_events_without_an_id_are_never_duplicates(platform: Platform) -> None:
    platform.deploy(function())
    assert len({platform.send(), platform.send()}) == 2
    assert len(platform.runs()) == 2


def test_a_runs_id_is_derived_from_function_and_event(platform: Platform) -> None:
    platform.deploy(function(id="f"))
    platform.deploy(function(id="g"))
    platform.send(id="event-1")
    platform.send(id="event-2")
    runs = {(run["function_id"], run["event_id"]): run["id"] for run in platform.runs()}
    assert len(set(runs.values())) == 4
    assert runs["f", "event-1"] == "kjebjc6zbsjvtntydg7nrpccaq"


# --- functions without steps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("definition", [{"steps": {}}, {}])
def test_a_function_without_steps_is_one_step_in_its_own_folder(platform: Platform, definition: Json) -> None:
    files: dict[str, str | bytes] = {"main.sh": "#!/bin/sh\n[ -f stepwell.json ] && echo yes\n"}
    platform.deploy({"id": "f", "triggers": [{"event": "go"}], **definition}, files)
    (run,) = platform.runs(platform.send())
    assert statuses(run) == {"step-1": "completed"}
    assert run["output"] == {"step-1": {"body": "yes"}}


def test_a_function_can_be_written_in_yaml(platform: Platform) -> None:
    text = """
id: f  # a comment
triggers: [{event: go}]
steps: {a: {path: file://one.py, runtime: {type: lambda, handler: one.scripted}}}
"""
    platform.deploy(text, {"one.py": SCRIPTED})
    (run,) = platform.runs(platform.send(data=script(a={"return": [1]})))
    assert run["output"] == {"a": [1]}
