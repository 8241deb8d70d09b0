"""Event types: how events are validated, what happens to invalid events, and how types can change."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from tests.behaviour.words import Json, Platform, Refused, function

AMOUNT: Json = {
    "type": "object",
    "required": ["amount"],
    "properties": {"amount": {"type": "number"}, "note": {"type": "string"}},
}
INVALID = "stepwell/event.invalid"


def register(
    platform: Platform, schema: Any = AMOUNT, name: str = "order/placed", version: str = "1", **more: Any
) -> Json:
    answer: Json = platform.api("POST", "/v1/types", {"name": name, "version": version, "schema": schema, **more})
    return answer


def alerts(platform: Platform) -> list[Json]:
    platform.settle()
    return [event["data"] for event in platform.events(INVALID)]


def refusal(platform: Platform, body: Any) -> list[Json]:
    """The errors for which a request is refused."""
    with pytest.raises(Refused) as refused:
        platform.api("POST", "/e", body)
    assert refused.value.status == 400
    return refused.value.errors


# --- policies --------------------------------------------------------------------------------------------------------


def test_a_valid_event_is_accepted_without_a_report(platform: Platform) -> None:
    register(platform, policy="reject")
    event_id = platform.send("order/placed", {"amount": 3})
    assert platform.event(event_id)["invalid"] == []
    assert alerts(platform) == []


def test_by_default_an_invalid_event_is_accepted_marked_and_reported(platform: Platform) -> None:
    register(platform)
    platform.deploy(function(on="order/placed"))
    event_id = platform.send("order/placed", {"amount": "three"}, {"id": "ada"})
    wrong = [{"pointer": "/data/amount", "message": 'the value is not of type "number"'}]
    assert [run["status"] for run in platform.runs(event_id)] == ["completed"]
    assert platform.event(event_id)["invalid"] == wrong
    (listed,) = platform.api("GET", "/v1/events?name=order/placed")["data"]
    assert listed["invalid"] == wrong
    assert alerts(platform) == [
        {"event_name": "order/placed", "event_id": event_id, "v": None, "policy": "warn", "errors": wrong,
         "more_errors": 0}
    ]  # fmt: skip
    (alert,) = platform.events(INVALID)
    assert alert["user"] == {"id": "ada"}


def test_a_refused_event_and_the_rest_of_its_request_are_not_stored(platform: Platform) -> None:
    register(platform, policy="reject")
    good, bad = {"name": "order/placed", "data": {"amount": 3}}, {"name": "order/placed", "data": {"note": 7}}
    errors = refusal(platform, [good, bad, {"name": "other"}])
    assert [(e["index"], e["pointer"]) for e in errors] == [(1, "/data"), (1, "/data/note")]
    assert errors[0]["message"] == '"amount" is a required property'
    (alert,) = alerts(platform)
    assert (alert["policy"], len(alert["errors"]), alert["event_name"]) == ("reject", 2, "order/placed")
    assert platform.events("order/placed") == []
    assert platform.events("other") == []


def test_schema_errors_are_reported_with_the_other_errors_of_a_request(platform: Platform) -> None:
    register(platform, policy="reject")
    errors = refusal(platform, [{"name": "order/placed", "data": {}}, {"nam": "x"}, {"name": "order/placed", "ts": -1}])
    assert [(e["index"], e["pointer"]) for e in errors] == [(0, "/data"), (1, "/name"), (1, "/nam"), (2, "/ts")]


def test_a_type_with_policy_off_reports_nothing(platform: Platform) -> None:
    register(platform, policy="off")
    event_id = platform.send("order/placed", {})
    assert platform.event(event_id)["invalid"] == []
    assert alerts(platform) == []


def test_a_policy_can_be_changed_by_itself(platform: Platform) -> None:
    register(platform)
    platform.send("order/placed", {})
    changed = platform.api("PATCH", "/v1/types/order/placed", {"policy": "reject"})
    assert (changed["policy"], changed["version"]) == ("reject", "1")
    refusal(platform, {"name": "order/placed"})
    register(platform, version="2")
    assert platform.api("GET", "/v1/types/order/placed")["policy"] == "reject"


# --- functions for invalid events ------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["warn", "reject"])
def test_a_function_can_start_on_invalid_events(platform: Platform, policy: str) -> None:
    register(platform, policy=policy)
    platform.deploy(function(on={"event": INVALID, "expression": "data.event_name == 'order/placed'"}))
    try:
        platform.send("order/placed", {})
    except Refused:
        assert policy == "reject"
    (run,) = [run for run in platform.runs() if run["function_id"] == "f"]
    assert run["status"] == "completed"


def test_engine_events_have_no_type_so_there_are_no_loops(platform: Platform) -> None:
    with pytest.raises(Refused, match="reserved for the engine"):
        register(platform, name=INVALID)
    platform.api("PUT", "/v1/settings", {"unknown_types": "warn"})
    platform.deploy(function(on=INVALID))
    platform.send("order/placed", {})
    assert len(alerts(platform)) == 1


def test_an_invalid_event_that_is_sent_twice_is_reported_once(platform: Platform) -> None:
    register(platform)
    for _ in range(3):
        platform.send("order/placed", {}, id="one")
    assert len(alerts(platform)) == 1


def test_a_corrected_event_is_accepted_under_the_same_id(platform: Platform) -> None:
    register(platform, policy="reject")
    for _ in range(2):
        refusal(platform, {"name": "order/placed", "id": "one"})
    assert platform.send("order/placed", {"amount": 1}, id="one") == "one"
    assert len(alerts(platform)) == 1


def test_senders_cannot_use_the_id_of_a_report(platform: Platform) -> None:
    (error,) = refusal(platform, {"name": "x", "id": "invalid:" + "a" * 26})
    assert error["pointer"] == "/id"


# --- unknown types ---------------------------------------------------------------------------------------------------


def test_events_without_a_type_are_accepted_by_default(platform: Platform) -> None:
    register(platform)
    assert platform.api("GET", "/v1/settings") == {"unknown_types": "off"}
    assert platform.event(platform.send("other"))["invalid"] == []
    assert platform.api("PUT", "/v1/settings", {"unknown_types": "warn"}) == {"unknown_types": "warn"}
    assert [e["pointer"] for e in platform.event(platform.send("other"))["invalid"]] == ["/name"]
    platform.api("PUT", "/v1/settings", {"unknown_types": "reject"})
    assert [e["pointer"] for e in refusal(platform, {"name": "other"})] == ["/name"]
    assert platform.api("POST", "/e", {"name": "stepwell/identify", "user": {"id": 1}})["ids"]


def test_an_unknown_policy_is_refused(platform: Platform) -> None:
    for body in ({"unknown_types": "maybe"}, {}, [], {"unknown_types": "off", "more": 1}, {"unknown_types": []}):
        with pytest.raises(Refused) as refused:
            platform.api("PUT", "/v1/settings", body)
        assert refused.value.status == 400


# --- versions --------------------------------------------------------------------------------------------------------


def test_v_selects_the_version_and_without_v_the_newest_counts(platform: Platform) -> None:
    register(platform, policy="reject")
    register(platform, {**AMOUNT, "required": ["amount", "currency"]}, version="2026-11-23.1")
    assert platform.send("order/placed", {"amount": 3}, v="1")
    assert [e["pointer"] for e in refusal(platform, {"name": "order/placed", "data": {"amount": 3}})] == ["/data"]
    shown = platform.api("GET", "/v1/types/order/placed")
    assert [v["version"] for v in shown["versions"]] == ["1", "2026-11-23.1"]
    assert (shown["version"], shown["schema"]["required"]) == ("2026-11-23.1", ["amount", "currency"])
    assert platform.api("GET", "/v1/types/order/placed?version=1")["schema"] == AMOUNT


def test_an_unregistered_version_is_handled_by_the_types_policy(platform: Platform) -> None:
    register(platform, policy="reject")
    (error,) = refusal(platform, {"name": "order/placed", "data": {"amount": 1}, "v": "7"})
    assert (error["pointer"], error["message"]) == ("/v", "order/placed has no version '7'; the newest are `1`")
    platform.api("PATCH", "/v1/types/order/placed", {"policy": "warn"})
    event_id = platform.send("order/placed", {"amount": 1}, v="7")
    assert [e["pointer"] for e in platform.event(event_id)["invalid"]] == ["/v"]


def test_registering_the_same_type_again_changes_nothing(platform: Platform) -> None:
    assert register(platform)["change"] == "created"
    register(platform, {}, version="2")
    assert register(platform)["change"] == "unchanged"
    assert platform.api("GET", "/v1/types/order/placed")["version"] == "2"
    assert [item["name"] for item in platform.api("GET", "/v1/types")["data"]] == ["order/placed"]


def test_a_version_can_only_be_changed_compatibly(platform: Platform) -> None:
    register(platform, policy="reject")
    with pytest.raises(Refused) as refused:
        register(platform, {**AMOUNT, "required": ["amount", "note"]})
    assert refused.value.status == 409
    assert "/schema/required" in [error["pointer"] for error in refused.value.errors]
    assert platform.send("order/placed", {"amount": 1})
    assert register(platform, {**AMOUNT, "required": []})["change"] == "updated"
    assert platform.send("order/placed", {})


def test_a_breaking_version_reports_what_breaks_and_which_functions_are_affected(platform: Platform) -> None:
    register(platform)
    platform.deploy(function(on={"event": "order/placed", "expression": "event.data.amount > 100.0"}, id="large"))
    platform.deploy(function(on="other", id="other"))
    change = register(platform, {"type": "object", "properties": {"amount": {"type": "string"}}}, version="2")
    assert (change["change"], change["compared_with"]) == ("created", "1")
    assert "/properties/amount/type" in [item["pointer"] for item in change["breaking"]]
    assert {item["function_id"] for item in change["affected"]} == {"large"}
    assert [item["pointer"] for item in change["affected"]] == ["/triggers/0", "/triggers/0/expression"]


# --- the default -----------------------------------------------------------------------------------------------------

TEXT: Json = {"type": "object", "properties": {"amount": {"type": "string"}}}


def register_all(platform: Platform, *versions: Json, path: str = "/v1/types") -> list[Json]:
    types = [{"name": "order/placed", **version} for version in versions]
    answer: list[Json] = platform.api("PUT", path, {"types": types})["data"]
    return answer


def default(platform: Platform) -> str:
    answer: str = platform.api("GET", "/v1/types/order/placed")["default"]
    return answer


@pytest.mark.parametrize(
    "schema",
    [
        TEXT,
        {**AMOUNT, "required": ["amount", "currency"]},
        {**AMOUNT, "additionalProperties": False},
        {"type": "object", "properties": {"amount": {"type": "number", "maximum": 10}}},
        {"type": "object", "properties": {"amount": {"enum": [1, 2]}}},
        False,
    ],
)
def test_a_version_that_breaks_current_senders_is_refused_if_may_break_is_false(
    platform: Platform, schema: Any
) -> None:
    register(platform, policy="reject")
    with pytest.raises(Refused, match="/types/1/schema") as refused:
        register_all(
            platform,
            {"name": "other", "version": "1", "schema": {}},
            {"version": "2", "schema": schema, "may_break": False},
        )
    assert refused.value.status == 409
    assert all(error["pointer"].startswith("/types/1/schema") for error in refused.value.errors)
    assert [item["name"] for item in platform.api("GET", "/v1/types")["data"]] == ["order/placed"]
    assert platform.send("order/placed", {"amount": 3, "note": "x"})
    assert default(platform) == "1"


@pytest.mark.parametrize(
    ("version", "may_senders_go_on"),
    [
        ({"schema": TEXT, "may_break": True}, False),
        ({"schema": TEXT, "policy": "warn", "may_break": False}, True),
        ({"schema": TEXT, "policy": "off", "may_break": False}, True),
        ({"schema": {**AMOUNT, "required": []}, "may_break": False}, True),
        ({"schema": {"type": "object", "properties": {**AMOUNT["properties"], "new": {"type": "string"}}},
          "may_break": False}, True),
    ],
)  # fmt: skip
def test_a_compatible_version_or_an_allowed_break_is_registered(
    platform: Platform, version: Json, may_senders_go_on: bool
) -> None:
    register(platform, policy="reject")
    (change,) = register_all(platform, {"version": "2", **version})
    assert (change["change"], change["default"], default(platform)) == ("created", "2", "2")
    if may_senders_go_on:
        assert platform.send("order/placed", {"amount": 3})
    else:
        refusal(platform, {"name": "order/placed", "data": {"amount": 3}})


def test_with_policy_off_a_breaking_version_is_registered(platform: Platform) -> None:
    register(platform, policy="off")
    assert register_all(platform, {"version": "2", "schema": TEXT, "may_break": False})[0]["policy"] == "off"
    platform.api("PATCH", "/v1/types/order/placed", {"policy": "reject"})
    with pytest.raises(Refused, match="was string, is number now"):
        register_all(platform, {"version": "3", "schema": AMOUNT, "policy": "reject", "may_break": False})


def test_repeating_the_policy_reject_does_not_allow_a_break(platform: Platform) -> None:
    version = {"version": "2", "schema": TEXT, "policy": "reject", "may_break": False}
    register(platform)
    assert register_all(platform, version)[0]["policy"] == "reject"
    with pytest.raises(Refused, match="was string, is number now"):
        register_all(platform, {**version, "version": "3", "schema": AMOUNT})


def test_the_history_of_a_type_can_be_registered_in_one_request(platform: Platform) -> None:
    versions = [{"version": v, "schema": s, "may_break": False} for v, s in (("1", AMOUNT), ("2", TEXT), ("3", AMOUNT))]
    assert [change["change"] for change in register_all(platform, *versions)] == ["created"] * 3
    assert [change["change"] for change in register_all(platform, *versions)] == ["unchanged"] * 3


def test_a_registration_can_be_a_dry_run(platform: Platform) -> None:
    (change,) = register_all(platform, {"version": "1", "schema": AMOUNT}, path="/v1/types?dry_run=true")
    assert (change["change"], change["default"]) == ("created", "1")
    assert platform.api("GET", "/v1/types")["data"] == []
    register(platform, policy="reject")
    with pytest.raises(Refused, match="was number, is string now"):
        register_all(platform, {"version": "2", "schema": TEXT, "may_break": False}, path="/v1/types?dry_run=true")
    with pytest.raises(Refused, match="is not a boolean"):
        register_all(platform, {"version": "1", "schema": AMOUNT}, path="/v1/types?dry_run=maybe")


def test_the_default_can_be_chosen_and_stays_when_newer_versions_come(platform: Platform) -> None:
    register(platform, policy="reject")
    register(platform, TEXT, version="2")
    refusal(platform, {"name": "order/placed", "data": {"amount": 3}})
    shown = platform.api("PATCH", "/v1/types/order/placed", {"default": "1"})
    assert (shown["default"], shown["is_chosen"], shown["version"]) == ("1", True, "2")
    assert platform.send("order/placed", {"amount": 3})
    assert platform.send("order/placed", {"amount": "3"}, v="2")
    (change,) = register_all(platform, {"version": "3", "schema": False, "may_break": False})
    assert (change["default"], default(platform)) == ("1", "1")
    assert platform.api("GET", "/v1/types/order/placed")["schema"] == AMOUNT
    platform.restart()
    assert platform.send("order/placed", {"amount": 3})
    shown = platform.api("PATCH", "/v1/types/order/placed", {"default": None, "policy": "warn"})
    assert (shown["default"], shown["is_chosen"], shown["policy"]) == ("3", False, "warn")
    assert platform.event(platform.send("order/placed", {"amount": 3}))["invalid"]


def test_a_version_can_be_removed_and_the_one_before_counts_again(platform: Platform) -> None:
    register(platform, policy="reject")
    register(platform, TEXT, version="2")
    answer = platform.api("DELETE", "/v1/types/order/placed?version=2")
    assert answer == {"name": "order/placed", "removed": "2", "default": "1"}
    assert platform.send("order/placed", {"amount": 3})
    refusal(platform, {"name": "order/placed", "data": {"amount": "3"}, "v": "2"})
    assert register(platform, AMOUNT, version="3")["compared_with"] == "1"
    platform.api("DELETE", "/v1/types/order/placed?version=1")
    shown = platform.api("GET", "/v1/types/order/placed")
    assert ([v["version"] for v in shown["versions"]], shown["policy"]) == (["3"], "reject")
    assert register(platform, TEXT, version="1")["change"] == "created"


def test_removing_the_last_version_removes_the_type(platform: Platform) -> None:
    register(platform, policy="reject")
    platform.api("PATCH", "/v1/types/order/placed", {"default": "1"})
    answer = platform.api("DELETE", "/v1/types/order/placed?version=1")
    assert answer == {"name": "order/placed", "removed": "1", "default": None}
    assert platform.api("GET", "/v1/types")["data"] == []
    assert platform.event(platform.send("order/placed", {"amount": "x"}))["invalid"] == []
    assert register(platform)["policy"] == "warn"
    assert default(platform) == "1"


def test_a_version_in_use_cannot_be_removed(platform: Platform) -> None:
    register(platform)
    register(platform, version="2")
    platform.api("PATCH", "/v1/types/order/placed", {"default": "1"})
    with pytest.raises(Refused, match="stepwell types default order/placed 2") as refused:
        platform.api("DELETE", "/v1/types/order/placed?version=1")
    assert refused.value.status == 409
    carried = {"event": "paid", "definition": {"def": {**AMOUNT, "x-stepwell-v": "7"}}}
    platform.deploy(function(on=carried, id="carrier"))
    with pytest.raises(Refused, match="a trigger of carrier, which is live") as refused:
        platform.api("DELETE", "/v1/types/paid?version=7")
    assert refused.value.status == 409
    platform.api("DELETE", "/v1/functions/carrier")
    assert platform.api("DELETE", "/v1/types/paid?version=7")["default"] is None


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("PATCH", "/v1/types/order/placed", {"default": "11"}, 404, "has no version '11'"),
        ("PATCH", "/v1/types/order/plased", {"default": "1"}, 404, "no type is registered"),
        ("PATCH", "/v1/types/order/placed", {"default": 1}, 400, "default"),
        ("PATCH", "/v1/types/order/placed", {}, 400, "property"),
        ("DELETE", "/v1/types/order/placed?version=11", None, 404, "has no version '11'"),
        ("DELETE", "/v1/types/order/plased?version=1", None, 404, "no type is registered"),
        ("DELETE", "/v1/types/order/placed", None, 400, "version"),
        ("PUT", "/v1/types", {"types": [{"name": "a"}]}, 400, "types/0"),
        ("PUT", "/v1/types", {}, 400, "types"),
    ],
)
def test_changing_an_unknown_type_or_version_is_refused(
    platform: Platform, method: str, path: str, body: Any, status: int, words: str
) -> None:
    register(platform)
    with pytest.raises(Refused, match=words) as refused:
        platform.api(method, path, body)
    assert refused.value.status == status
    assert default(platform) == "1"


def test_a_rollback_lists_the_types_that_were_registered_later_and_still_count(platform: Platform) -> None:
    on = {"on": "order/placed"}
    register(platform)
    register(platform, name="unrelated")
    platform.deploy(function(**on))
    platform.travel("1s")
    register(platform, TEXT, version="2")
    register(platform, version="2", name="unrelated")
    platform.deploy(function(**on, name="new"))
    rolled_back = platform.api("POST", "/v1/functions/f/rollback", {})
    assert rolled_back["live"] == 1
    assert rolled_back["types"] == [{"name": "order/placed", "version": "2", "before": "1"}]
    assert platform.api("POST", "/v1/functions/f/rollback", {"to": 2})["types"] == []
    platform.api("PATCH", "/v1/types/order/placed", {"default": "1"})
    assert platform.api("POST", "/v1/functions/f/rollback", {"to": 1})["types"] == []


# --- schemas ---------------------------------------------------------------------------------------------------------


def test_a_schema_can_describe_the_whole_event(platform: Platform) -> None:
    whole = {
        "type": "object",
        "properties": {
            "name": {"const": "order/placed"},
            "data": AMOUNT,
            "user": {"required": ["external_id"]},
            "v": {"type": "string"},
        },
    }
    register(platform, whole, policy="reject")
    errors = refusal(platform, {"name": "order/placed", "data": {"amount": "x"}})
    assert sorted(e["pointer"] for e in errors) == ["/data/amount", "/user"]
    assert platform.send("order/placed", {"amount": 1}, {"external_id": "ada"})


def test_pointers_are_escaped_as_in_rfc_6901(platform: Platform) -> None:
    register(platform, {"properties": {"a/b~ü": {"type": "string"}}}, policy="reject")
    (error,) = refusal(platform, {"name": "order/placed", "data": {"a/b~ü": 1}})
    assert error["pointer"] == "/data/a~1b~0ü"


def test_error_messages_never_contain_values_of_the_event(platform: Platform) -> None:
    register(platform, {"properties": {"card": {"type": "integer", "enum": [1]}, "pin": {"pattern": "^[0-9]$"}}})
    event_id = platform.send("order/placed", {"card": "4111-1111", "pin": "4111-1111"})
    assert len(platform.event(event_id)["invalid"]) == 3
    assert "4111" not in str(platform.event(event_id)["invalid"]) + str(alerts(platform))


def test_the_sender_gets_all_errors_and_reports_contain_the_first_ones(platform: Platform) -> None:
    properties = {f"p{i:02}": {"type": "string"} for i in range(30)}
    register(platform, {"properties": properties}, policy="reject")
    assert len(refusal(platform, {"name": "order/placed", "data": dict.fromkeys(properties, 1)})) == 30
    (alert,) = alerts(platform)
    assert (len(alert["errors"]), alert["more_errors"]) == (20, 10)


@pytest.mark.parametrize(
    ("schema", "pointer", "words"),
    [
        ({"type": "objekt"}, "/schema/type", "objekt"),
        ({"properties": {"a": {"$ref": "https://example.com/a.json"}}}, "/schema/properties/a/$ref", "fetched"),
        ({"$ref": "file:///etc/passwd"}, "/schema/$ref", "is not fetched"),
        ({"$ref": "#/$defs/none"}, "/schema/$ref", "does not refer to a schema"),
        ({"$ref": "#"}, "/schema", "itself"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "/schema/$schema", "2020-12"),
        ({"properties": {"a": {"pattern": "(?=a)b"}}}, "/schema/properties/a/pattern", "linear time"),
        ({"description": "x" * 1_000_000}, "/schema", "bytes"),
        ({"$defs": {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(30)} | {"a30": {}},
          "$ref": "#/$defs/a0"}, "/schema", "expand"),
        ([], "/schema", "object"),
        ("text", "/schema", "object"),
    ],
)  # fmt: skip
def test_a_broken_or_dangerous_schema_is_refused_with_a_pointer(
    platform: Platform, schema: Any, pointer: str, words: str
) -> None:
    with pytest.raises(Refused) as refused:
        register(platform, schema)
    assert refused.value.status == 400
    assert any(error["pointer"] == pointer and words in error["message"] for error in refused.value.errors)
    assert platform.api("GET", "/v1/types")["data"] == []


@pytest.mark.parametrize(
    "body",
    [
        {"name": "a", "schema": {}},
        {"name": "", "version": "1", "schema": {}},
        {"name": "a*", "version": "1", "schema": {}},
        {"name": "a" * 257, "version": "1", "schema": {}},
        {"name": "a", "version": "v" * 129, "schema": {}},
        {"name": "a", "version": "", "schema": {}},
        {"name": 7, "version": "1", "schema": {}},
        {"name": "a", "version": "1", "schema": {}, "policy": "maybe"},
        {"name": "a", "version": "1", "schema": {}, "more": 1},
        [],
        None,
    ],
)
def test_an_invalid_registration_is_refused(platform: Platform, body: Any) -> None:
    with pytest.raises(Refused) as refused:
        platform.api("POST", "/v1/types", body)
    assert refused.value.status == 400


def test_a_pattern_that_causes_backtracking_elsewhere_is_matched_at_once(platform: Platform) -> None:
    register(platform, {"properties": {"x": {"pattern": "^(a+)+$"}}}, policy="reject")
    (error,) = refusal(platform, {"name": "order/placed", "data": {"x": "a" * 50_000 + "!"}})
    assert error["pointer"] == "/data/x"


def test_a_schema_of_exponential_cost_accepts_only_shallow_events(platform: Platform) -> None:
    both = {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}
    schema = {"$defs": {"a": {"properties": {"c": both}, "required": ["z"]}}, "$ref": "#/$defs/a"}
    register(platform, schema, policy="reject")
    deep: Json = {}
    for _ in range(100):
        deep = {"c": deep}
    (error,) = refusal(platform, {"name": "order/placed", "data": deep})
    assert (error["pointer"], error["message"]) == (
        "/data",
        "more than 11 levels of nesting cannot be checked with this schema",
    )


def test_a_schema_can_describe_a_tree_of_any_depth(platform: Platform) -> None:
    node = {"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}, "n": {"type": "number"}}}
    register(platform, node, policy="reject")
    tree: Json = {"n": "x"}
    for _ in range(100):
        tree = {"left": tree, "right": {"n": 1}}
    (error,) = refusal(platform, {"name": "order/placed", "data": tree})
    assert error["pointer"] == "/data" + "/left" * 100 + "/n"


def test_unknown_types_are_refused_with_a_message(platform: Platform) -> None:
    for method, path, body in (("GET", "/v1/types/no", None), ("PATCH", "/v1/types/no", {"policy": "warn"})):
        with pytest.raises(Refused, match="no type is registered for 'no'") as refused:
            platform.api(method, path, body)
        assert refused.value.status == 404
    register(platform)
    with pytest.raises(Refused, match="has no version '9'"):
        platform.api("GET", "/v1/types/order/placed?version=9")


def test_types_survive_a_restart(platform: Platform) -> None:
    register(platform, policy="reject")
    platform.api("PUT", "/v1/settings", {"unknown_types": "warn"})
    platform.restart()
    refusal(platform, {"name": "order/placed"})
    assert platform.api("GET", "/v1/settings") == {"unknown_types": "warn"}


# --- types that come with functions ----------------------------------------------------------------------------------


def test_a_schemas_folder_beside_a_function_is_registered_with_it(platform: Platform) -> None:
    new = {"type": "object", "required": ["amount", "currency"], "x-stepwell-policy": "reject"}
    files = {
        "schemas/order/placed.2026-11-9.schema.json": json.dumps(AMOUNT),
        "schemas/order/placed.2026-11-10.schema.json": json.dumps(new),
    }
    platform.deploy(function(on="order/placed"), files)
    shown = platform.api("GET", "/v1/types/order/placed")
    assert [v["version"] for v in shown["versions"]] == ["2026-11-9", "2026-11-10"]
    assert (shown["policy"], shown["schema"]) == ("reject", new)
    assert len(refusal(platform, {"name": "order/placed"})) == 2
    platform.deploy(function(on="order/placed", name="again"), files)
    assert len(platform.api("GET", "/v1/types/order/placed")["versions"]) == 2


def test_a_trigger_can_contain_the_type_of_its_event(platform: Platform) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "data": AMOUNT, "v": {"const": "2022-10-01"}},
        "required": ["name", "data"],
    }
    trigger = {"event": "order/placed", "definition": {"format": "json-schema", "synced": True, "def": schema}}
    platform.deploy(function(on=trigger))
    assert platform.api("GET", "/v1/types/order/placed")["version"] == "2022-10-01"
    event_id = platform.send("order/placed", {"amount": "x"})
    assert [e["pointer"] for e in platform.event(event_id)["invalid"]] == ["/data/amount"]


def test_a_triggers_type_without_a_version_gets_one_from_its_content(platform: Platform) -> None:
    for amount in ("number", "string"):
        schema = {"type": "object", "properties": {"amount": {"type": amount}}}
        platform.deploy(function(on={"event": "order/placed", "definition": {"def": schema}}))
    versions = [v["version"] for v in platform.api("GET", "/v1/types/order/placed")["versions"]]
    assert len(versions) == 2
    assert all(version.startswith("def-") for version in versions)
    assert platform.event(platform.send("order/placed", {"amount": "x"}))["invalid"] == []


def test_names_and_ids_in_paths_can_contain_any_character(platform: Platform) -> None:
    """As far as paths can express them: servers and proxies decode a path once."""
    names = ["a/b", "a?b", "a%2Fb", "a#b", "100%", "a b", "a+b", "ü", "a%20b", "a;b=c", "a", "b"]
    for name in names:
        body = {"name": name, "version": "1", "schema": {"description": name}}
        platform.api("POST", "/v1/types", body)
        platform.send("go", id=name)
    for name in names:
        quoted = quote(name, safe="")
        assert platform.api("GET", f"/v1/types/{quoted}")["schema"] == {"description": name}
        assert platform.api("PATCH", f"/v1/types/{quoted}", {"policy": "reject"})["name"] == name
        assert platform.api("GET", f"/v1/events/{quoted}")["id"] == name
        assert platform.api("GET", f"/v1/events/{quoted}/runs")["data"] == []


def test_for_a_large_event_only_the_first_error_is_reported(platform: Platform) -> None:
    """A server would need too long to find all errors."""
    kinds = [{"required": ["kind", name], "properties": {"kind": {"const": name}}} for name in ("x", "y", "z")]
    schema = {"properties": {"items": {"items": {"anyOf": kinds}}}, "x-stepwell-policy": "reject"}
    platform.api("POST", "/v1/types", {"name": "order", "version": "1", "schema": schema, "policy": "reject"})
    items = [{"kind": "x", "x": 1}] * 5000
    platform.send("order", {"items": items})
    (error,) = refusal(platform, {"name": "order", "data": {"items": [*items, {"kind": "x"}, {}, *items]}})
    assert (error["index"], error["pointer"]) == (0, "/data/items/5000")
    assert len(refusal(platform, {"name": "order", "data": {"items": [{}] * 100}})) == 100
