"""Approvals: links, the page, decisions, and the run that waits for a decision."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from tests.behaviour.words import START, Json, Platform, Refused, function, moment, script, statuses

FORM = {"content-type": "application/x-www-form-urlencoded"}
NO_KEY = {"authorization": ""}
XSS = "<script>alert(1)</script> \"'&"


def approval_step(message: str = "Really?", after: Any = (), **fields: Any) -> Json:
    values = {name: fields.pop(name) for name in ("approvers",) if name in fields}
    edges = [after] if isinstance(after, str | dict) else list(after)
    return {"runtime": {"type": "approval", "message": message, **values}, "after": edges, **fields}


def approval(after: Any = (), **fields: Any) -> Json:
    """A function with an approval, a step for either decision, and a step for the timeout."""
    steps = {
        "confirm": approval_step(**fields),
        "yes": {"after": {"step": "confirm", "if": "response.approved"}},
        "no": {"after": {"step": "confirm", "if": "!response.approved"}},
        "late": {"after": {"step": "confirm", "on": "failure"}},
    }
    return definition(steps)


def definition(steps: Json, **fields: Any) -> Json:
    """Like `function`, with scripted steps, but leaves approvals without code."""
    made = function(steps, **fields)
    for step in made["steps"].values():
        if step["runtime"]["type"] == "approval":
            del step["path"], step["retries"]
    return made


def start(platform: Platform, fields: Json | None = None, **sent: Any) -> str:
    """Starts a run whose approval is open. Returns the run's id."""
    platform.deploy(fields or approval())
    (run,) = platform.runs(platform.send(**sent))
    assert run["status"] == "running", run
    return str(run["id"])


def open_approval(platform: Platform, run_id: str, step: str = "confirm") -> Json:
    fields: Json = platform.run(run_id)["steps"][step]["approval"]
    return fields


def path(url: str) -> str:
    return urlsplit(url).path


def token(url: str) -> str:
    return path(url).rpartition("/")[2]


def post(platform: Platform, url: str, **form: str) -> Any:
    return platform.http("POST", path(url), urlencode(form).encode(), {**FORM, **NO_KEY})


def text(answer: Any) -> str:
    return unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", answer.body.decode(), flags=re.DOTALL))


# --- the step --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decision", ["approved", "declined"])
def test_a_run_waits_for_a_decision_and_follows_it(platform: Platform, decision: str) -> None:
    run_id = start(platform)
    run = platform.run(run_id)
    assert statuses(run) == {"confirm": "running", "yes": "pending", "no": "pending", "late": "pending"}
    (attempt,) = run["steps"]["confirm"]["attempts"]
    assert (attempt["attempt"], attempt["status"], moment(attempt["started_at"])) == (1, "running", START)
    platform.travel("2d")
    decide = platform.approve if decision == "approved" else platform.decline
    fields = decide(run_id, comment="as we said", by="Ada")
    output = {
        "decision": decision,
        "approved": decision == "approved",
        "comment": "as we said",
        "by": "Ada",
        "decided_at": fields["decided_at"],
    }
    assert fields == {"run_id": run_id, "step_id": "confirm", **output}
    assert moment(fields["decided_at"]) == START + timedelta(days=2)
    platform.settle()
    run = platform.run(run_id)
    assert run["steps"]["confirm"]["output"] == output
    yes, no = ("completed", "skipped") if decision == "approved" else ("skipped", "completed")
    assert statuses(run) == {"confirm": "completed", "yes": yes, "no": no, "late": "skipped"}
    assert run["status"] == "completed"
    assert "approval" not in run["steps"]["confirm"]


def test_later_steps_see_the_decision(platform: Platform) -> None:
    fields = definition(
        {"confirm": approval_step(), "use": {"after": {"step": "confirm", "if": "response.by == 'Ada'"}}}
    )
    run_id = start(platform, fields, data=script(use={"input": True}))
    platform.approve(run_id, by="Ada")
    assert platform.run(run_id)["output"]["use"]["steps"]["confirm"]["decision"] == "approved"


def test_comment_and_name_are_optional(platform: Platform) -> None:
    run_id = start(platform)
    url = open_approval(platform, run_id)["approve_url"]
    answer = platform.http("POST", f"/v1/approvals/{token(url)}", b"", NO_KEY).json()
    assert (answer["comment"], answer["by"]) == (None, None)


def test_a_step_without_a_decision_in_time_fails_with_approval_timeout(platform: Platform) -> None:
    run_id = start(platform, approval(timeout="3h"))
    until = moment(open_approval(platform, run_id)["expires_at"])
    assert until == START + timedelta(hours=3)
    platform.travel("2h59m")
    assert platform.run(run_id)["status"] == "running"
    platform.travel("2m")
    run = platform.run(run_id)
    assert statuses(run) == {"confirm": "failed", "yes": "skipped", "no": "skipped", "late": "completed"}
    assert run["steps"]["confirm"]["error"]["kind"] == "approval_timeout"
    (attempt,) = run["steps"]["confirm"]["attempts"]
    assert (attempt["status"], moment(attempt["ended_at"])) == ("failed", until)


def test_an_unhandled_timeout_fails_the_run_without_a_retry(platform: Platform) -> None:
    run_id = start(platform, definition({"confirm": approval_step(timeout="1h")}))
    platform.travel("2h")
    run = platform.run(run_id)
    assert (run["status"], run["error"]["kind"]) == ("failed", "approval_timeout")
    assert len(run["steps"]["confirm"]["attempts"]) == 1


def test_the_default_timeout_is_seven_days(platform: Platform) -> None:
    run_id = start(platform)
    assert moment(open_approval(platform, run_id)["expires_at"]) == START + timedelta(days=7)
    platform.travel("8d")
    assert platform.run(run_id)["steps"]["late"]["status"] == "completed"


def test_the_timeout_can_be_set_in_the_runtime(platform: Platform) -> None:
    asks_for_two_days = {"runtime": {"type": "approval", "message": "?", "timeout": "2d"}}
    run_id = start(platform, definition({"confirm": asks_for_two_days}))
    assert moment(open_approval(platform, run_id)["expires_at"]) == START + timedelta(days=2)
    platform.travel("49h")
    assert platform.run(run_id)["error"]["kind"] == "approval_timeout"


def test_an_approval_can_wait_for_366_days(platform: Platform) -> None:
    before = {"first": {}, "confirm": approval_step("{{ steps.first.n }}", "first", timeout="366d")}
    use = {"after": {"step": "confirm", "if": "response.approved"}}
    fields = definition({**before, "use": use})
    data = script(first={"return": {"n": 7, "text": "x" * 5000}}, use={"input": True})
    run_id = start(platform, fields, data={**data, "more": "y" * 2000})
    platform.travel("365d")
    assert open_approval(platform, run_id)["message"] == "7"
    platform.approve(run_id)
    use_input = platform.run(run_id)["output"]["use"]
    assert (use_input["steps"]["first"]["n"], len(use_input["event"]["data"]["more"])) == (7, 2000)


def test_an_open_approval_survives_a_restart(platform: Platform) -> None:
    run_id = start(platform, approval(timeout="2h"))
    before = open_approval(platform, run_id)
    platform.restart("1h")
    assert open_approval(platform, run_id) == before
    (attempt,) = platform.run(run_id)["steps"]["confirm"]["attempts"]
    assert (attempt["attempt"], attempt["status"]) == (1, "running")
    platform.approve(run_id)
    assert platform.run(run_id)["steps"]["yes"]["status"] == "completed"


def test_a_timeout_during_downtime_fails_the_step_after_the_restart(platform: Platform) -> None:
    run_id = start(platform, approval(timeout="2h"))
    url = open_approval(platform, run_id)["approve_url"]
    platform.restart("3h")
    platform.settle()
    platform.travel("5m")
    assert platform.run(run_id)["steps"]["confirm"]["error"]["kind"] == "approval_timeout"
    assert post(platform, url).status == 410


def test_open_approvals_take_no_slot(platform: Platform) -> None:
    platform.deploy(approval())
    events = [platform.send(data=script(yes={"return": n})) for n in range(3 * platform.parallelism)]
    platform.deploy(function(id="other", on="other"))
    assert platform.runs(platform.send("other"))[0]["status"] == "completed"
    runs = [platform.runs(event)[0] for event in events]
    assert {run["steps"]["confirm"]["status"] for run in runs} == {"running"}
    platform.approve(runs[0]["id"])
    assert platform.run(runs[0]["id"])["status"] == "completed"


def test_a_run_can_have_several_open_approvals(platform: Platform) -> None:
    steps = {
        "a": approval_step("A?"),
        "b": approval_step("B?"),
        "both": {"after": [{"step": s, "if": "response.approved"} for s in "ab"]},
    }
    steps["both"]["join"] = "all"
    run_id = start(platform, definition(steps))
    platform.approve(run_id, "b")
    assert statuses(platform.run(run_id)) == {"a": "running", "b": "completed", "both": "pending"}
    platform.approve(run_id, "a")
    assert platform.run(run_id)["status"] == "completed"


def test_an_approval_can_come_after_another(platform: Platform) -> None:
    second = approval_step("And {{ steps.one.by }} is right?", {"step": "one", "if": "response.approved"})
    run_id = start(platform, definition({"one": approval_step("One?"), "two": second}))
    platform.approve(run_id, by="Ada")
    assert open_approval(platform, run_id, "two")["message"] == "And Ada is right?"
    platform.decline(run_id, "two")
    assert platform.run(run_id)["output"]["two"]["decision"] == "declined"


def test_approvals_work_in_a_function_with_many_steps(platform: Platform) -> None:
    steps = {"confirm": approval_step(), **{f"s{n}": {"after": {"step": "confirm", "if": "false"}} for n in range(40)}}
    run_id = start(platform, definition({**steps, "yes": {"after": {"step": "confirm", "if": "response.approved"}}}))
    url = open_approval(platform, run_id)["approve_url"]
    platform.approve(run_id, by="Ada")
    assert platform.run(run_id)["steps"]["yes"]["status"] == "completed"
    assert post(platform, url).status == 409


# --- the message -----------------------------------------------------------------------------------------------------


def test_a_message_can_contain_values_of_the_run(platform: Platform) -> None:
    message = "Pay {{ data.amount }} {{ data['currency'] }} to {{user.email}}? {{ steps.first }}"
    fields = definition({"first": {}, "confirm": approval_step(message, "first", approvers=["ops@example.com", "Ada"])})
    data = {"amount": 12.5, "currency": "EUR", **script(first={"return": {"ok": True}})}
    run_id = start(platform, fields, data=data, user={"email": "bob@example.com"})
    found = open_approval(platform, run_id)
    assert found["message"] == 'Pay 12.5 EUR to bob@example.com? {"ok":true}'
    assert found["approvers"] == ["ops@example.com", "Ada"]


@pytest.mark.parametrize("handled", [True, False])
def test_a_message_whose_expression_has_no_value_fails_the_step(platform: Platform, handled: bool) -> None:
    steps = {"confirm": approval_step("Pay {{ data.amount }} to {{ data.payee }}?"), "paid": "confirm"}
    fields = definition({**steps, "mend": {"after": {"step": "confirm", "on": "failure"}}} if handled else steps)
    platform.deploy(fields)
    (run,) = platform.runs(platform.send(data={"amount": 1}))
    error = run["steps"]["confirm"]["error"]
    assert (run["status"], error["kind"]) == ("completed" if handled else "failed", "message_failed")
    assert [text in error["message"] for text in ("{{ data.payee }}", 'no key "payee"', "has(")] == [True] * 3
    assert platform.api("GET", "/v1/approvals")["data"] == []
    assert platform.events("stepwell/approval.requested") == []


def test_control_characters_are_removed_from_messages_and_long_ones_are_cut(platform: Platform) -> None:
    run_id = start(platform, approval(message="{{ data.text }}"), data={"text": "\x1b[31mred\x07 " + "é" * 5000})
    message = open_approval(platform, run_id)["message"]
    assert message.startswith("red é")
    assert len(message) == 2000


def test_open_approvals_are_listed_newest_first(platform: Platform) -> None:
    platform.deploy(approval(message="{{ data.n }}?"))
    for n in range(5):
        platform.send(data={"n": n}, user={"email": f"{n}@example.com"})
    runs = platform.runs()
    platform.approve(runs[1]["id"])
    platform.cancel(runs[3]["id"])
    first = platform.api("GET", "/v1/approvals?limit=2")
    assert [item["message"] for item in first["data"]] == ["4?", "2?"]
    rest = platform.api("GET", f"/v1/approvals?limit=2&after={first['next']}")
    assert ([item["message"] for item in rest["data"]], rest["next"]) == (["0?"], None)
    newest = first["data"][0]
    assert newest == {
        "run_id": runs[4]["id"],
        "function_id": "f",
        "function_version": 1,
        "step_id": "confirm",
        "user": "4@example.com",
        "requested_at": newest["requested_at"],
        **open_approval(platform, runs[4]["id"]),
    }
    platform.travel("8d")
    assert platform.api("GET", "/v1/approvals")["data"] == []


def test_listing_approvals_needs_a_key(platform: Platform) -> None:
    takes_any = platform.name == "local"  # the test server accepts any key, like `stepwell dev`
    assert platform.http("GET", "/v1/approvals", b"", NO_KEY).status == (200 if takes_any else 401)


# --- the event -------------------------------------------------------------------------------------------------------


def test_an_open_approval_emits_an_event(platform: Platform) -> None:
    run_id = start(platform, approval(approvers=["Ada"]), user={"external_id": "u-1"})
    (event,) = platform.events("stepwell/approval.requested")
    assert event["id"] == f"approval:{run_id}:confirm:1"
    assert event["user"] == {"external_id": "u-1"}
    assert event["data"] == {
        "run_id": run_id,
        "function_id": "f",
        "function_version": 1,
        "step_id": "confirm",
        **open_approval(platform, run_id),
    }


def test_a_function_can_start_on_the_event_and_decide_with_the_link(platform: Platform) -> None:
    platform.deploy(function(id="mailer", on="stepwell/approval.requested"))
    run_id = start(platform)
    (event,) = platform.events("stepwell/approval.requested")
    assert platform.runs(event["id"])[0]["status"] == "completed"
    assert post(platform, event["data"]["approve_url"], by="Ada").status == 200
    platform.settle()
    assert platform.run(run_id)["steps"]["confirm"]["output"]["by"] == "Ada"


@pytest.mark.parametrize("event", ["stepwell/run.completed", "stepwell/approval.requested"])
def test_a_run_that_an_engine_event_started_emits_no_approval_event(platform: Platform, event: str) -> None:
    platform.deploy(definition({"confirm": approval_step(timeout="1h")}, id="own", on=event))
    platform.deploy(definition({"a": {}} if "run" in event else {"confirm": approval_step()}, id="first", on="go"))
    platform.send()
    (own,) = [run for run in platform.runs() if run["function_id"] == "own"]
    assert "approval" in own["steps"]["confirm"]
    items = [event["data"]["function_id"] for event in platform.events("stepwell/approval.requested")]
    assert items == ([] if "run" in event else ["first"])


def test_senders_cannot_send_approval_events(platform: Platform) -> None:
    with pytest.raises(Refused, match="reserved for the engine"):
        platform.send("stepwell/approval.requested", {"approve_url": "https://evil.example"})
    run_id = start(platform)
    with pytest.raises(Refused, match="reserved for the engine"):
        platform.send("other", id=f"approval:{run_id}:confirm:1")
    with pytest.raises(Refused, match="reserved for the engine"):
        platform.send("other", id="approval:42")
    platform.send("other", id="approvals:42")  # this prefix is not reserved


# --- links -----------------------------------------------------------------------------------------------------------


def test_opening_a_link_decides_nothing(platform: Platform) -> None:
    run_id = start(platform, approval(message=f"Ask {XSS}", approvers=["Ada"]))
    fields = open_approval(platform, run_id)
    for url in (fields["approve_url"], fields["decline_url"]):
        for method in ("GET", "HEAD"):
            answer = platform.http(method, path(url), b"", NO_KEY)
            assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert platform.http("OPTIONS", path(fields["approve_url"])).status == 405
    assert platform.http("PUT", path(fields["approve_url"])).status == 405
    assert platform.http("GET", f"/v1/approvals/{token(fields['approve_url'])}").status == 405
    assert open_approval(platform, run_id) == fields


def test_the_page_shows_the_message_and_loads_no_resources(platform: Platform) -> None:
    run_id = start(platform, approval(message=f"Ask {XSS}\nSecond line", approvers=["Ada", XSS]))
    answer = platform.http("GET", path(open_approval(platform, run_id)["approve_url"]), b"", NO_KEY)
    page = answer.body.decode()
    shown = text(answer)
    assert f"Ask {XSS}\nSecond line" in shown
    assert "f, step confirm" in shown
    assert f"Ada, {XSS}" in shown
    assert "8 June 2026, 10:00 UTC" in shown
    assert "<script" not in page
    assert not re.search(r"""\b(src|href|action|on\w+)\s*=|url\(|@import""", page)
    headers = answer.headers
    assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert "form-action 'self'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["x-content-type-options"] == "nosniff"
    assert '<label for="comment">' in page
    assert '<html lang="en">' in page


def test_submitting_the_form_decides_and_the_page_then_shows_the_decision(platform: Platform) -> None:
    run_id = start(platform)
    fields = open_approval(platform, run_id)
    done = post(platform, fields["decline_url"], comment=f"No: {XSS}\r\nnever", by=f" Ada \n {XSS}")
    assert done.status == 200
    assert "You declined" in text(done)
    platform.settle()
    output = platform.run(run_id)["steps"]["confirm"]["output"]
    assert (output["comment"], output["by"]) == (f"No: {XSS}\nnever", f"Ada {XSS}")
    for url in (fields["approve_url"], fields["decline_url"]):
        answer = platform.http("GET", path(url), b"", NO_KEY)
        assert answer.status == 200
        assert "This was declined" in text(answer)
        assert f"Ada {XSS}" in text(answer)
        assert f"No: {XSS}\nnever" in text(answer)
        assert "<script" not in answer.body.decode()
        assert "<button" not in answer.body.decode()


@pytest.mark.parametrize("again", ["approve_url", "decline_url"])
def test_the_first_decision_counts_and_later_ones_get_a_409(platform: Platform, again: str) -> None:
    run_id = start(platform)
    fields = open_approval(platform, run_id)
    first = platform.approve(run_id, comment="fine", by="Ada")
    with pytest.raises(Refused, match=r"already decided: approved by Ada at .*: fine") as refused:
        platform.api("POST", f"/v1/approvals/{token(fields[again])}", {"by": "Eve"})
    assert refused.value.status == 409
    (problem,) = refused.value.errors
    assert problem["decided"] == {name: first[name] for name in first if name not in ("run_id", "step_id")}
    page = post(platform, fields[again], by="Eve")
    assert page.status == 409
    assert "This was approved already" in text(page)
    platform.settle()
    assert platform.run(run_id)["steps"]["confirm"]["output"]["by"] == "Ada"
    assert platform.run(run_id)["status"] == "completed"


def test_an_altered_link_is_not_found(platform: Platform) -> None:
    run_id = start(platform)
    fields = open_approval(platform, run_id)
    good = token(fields["approve_url"])
    run, step, attempt, letter, until, mac = good.split(".", 5)  # the signature may contain the id of a key
    forged = [
        ".".join((run, step, attempt, "d", until, mac)),
        ".".join((run, step, attempt, letter, str(int(until) + 1), mac)),
        ".".join((run, "1", attempt, letter, until, mac)),
        ".".join((run, "9999", attempt, letter, until, mac)),
        ".".join((run, step, "2", letter, until, mac)),
        ".".join(("a" * 26, step, attempt, letter, until, mac)),
        ".".join((run, step, f"0{attempt}", letter, until, mac)),
        ".".join((run, step, attempt, letter, until, "0" * 32)),
        ".".join((run, step, attempt, letter, until, mac.upper())),
        f"{good}0",
        good[:-1],
        f"{run}.{step}",
        "x",
        "%00",
        "%F0%9F%98%80",
        "..%2f..",
        "a" * 5000,
    ]
    for wrong in forged:
        assert platform.http("GET", f"/approvals/{wrong}", b"", NO_KEY).status == 404, wrong
        assert platform.http("POST", f"/approvals/{wrong}", b"", {**FORM, **NO_KEY}).status == 404, wrong
        assert platform.http("POST", f"/v1/approvals/{wrong}", b"{}", NO_KEY).status == 404, wrong
    assert open_approval(platform, run_id) == fields


def test_an_expired_link_gets_a_410(platform: Platform) -> None:
    run_id = start(platform, approval(timeout="1h"))
    url = open_approval(platform, run_id)["approve_url"]
    platform.travel("2h")
    for answer in (platform.http("GET", path(url), b"", NO_KEY), post(platform, url)):
        assert answer.status == 410
        assert "This link has expired" in text(answer)
    with pytest.raises(Refused, match="has expired") as refused:
        platform.api("POST", f"/v1/approvals/{token(url)}")
    assert refused.value.status == 410
    assert platform.run(run_id)["steps"]["confirm"]["status"] == "failed"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b"[1]", ""),
        (b'"yes"', ""),
        (b"null", ""),
        (b'{"comment": 1}', "/comment"),
        (b'{"by": ["Ada"]}', "/by"),
        (b'{"by": "' + b"x" * 257 + b'"}', "/by"),
        (b'{"comment": "' + b"x" * 2001 + b'"}', "/comment"),
        (b'{"approved": true}', ""),
    ],
)
def test_an_invalid_decision_is_refused_with_a_pointer(platform: Platform, body: bytes, pointer: str) -> None:
    run_id = start(platform)
    url = open_approval(platform, run_id)["approve_url"]
    with pytest.raises(Refused) as refused:
        platform.http("POST", f"/v1/approvals/{token(url)}", body, NO_KEY).json()
    assert (refused.value.status, refused.value.errors[0]["pointer"]) == (400, pointer)
    assert platform.run(run_id)["steps"]["confirm"]["status"] == "running"


def test_a_request_that_the_form_would_not_send_decides_nothing(platform: Platform) -> None:
    run_id = start(platform)
    url = path(open_approval(platform, run_id)["approve_url"])
    assert platform.http("POST", f"/v1/approvals/{token(url)}", b"{", NO_KEY).status == 400
    assert platform.http("POST", f"/v1/approvals/{token(url)}", b'"\\ud800"', NO_KEY).status == 400
    assert platform.http("POST", url, b"comment=" + b"x" * 2001, {**FORM, **NO_KEY}).status == 400
    assert platform.http("POST", url, b"a=1&" * 50, {**FORM, **NO_KEY}).status == 400
    assert platform.http("POST", url, b"comment=" + b"x" * 70_000, {**FORM, **NO_KEY}).status == 413
    assert platform.run(run_id)["steps"]["confirm"]["status"] == "running"


def test_comments_can_contain_any_text(platform: Platform) -> None:
    run_id = start(platform)
    url = path(open_approval(platform, run_id)["approve_url"])
    body = b"comment=%F0%9F%91%8D+%00%1b%5B31m%FF%ED%A0%80&by=%E2%80%AEAda&unknown=1"
    assert platform.http("POST", url, body, {**FORM, **NO_KEY}).status == 200
    platform.settle()
    output = platform.run(run_id)["steps"]["confirm"]["output"]
    assert output["comment"].startswith("\U0001f44d ")
    assert not re.search(r"[\x00-\x08\x1b]", output["comment"])


# --- together with other features ------------------------------------------------------------------------------------


def test_a_cancelled_run_closes_its_approvals(platform: Platform) -> None:
    run_id = start(platform)
    url = open_approval(platform, run_id)["approve_url"]
    platform.cancel(run_id)
    run = platform.run(run_id)
    assert (run["status"], run["steps"]["confirm"]["status"]) == ("cancelled", "cancelled")
    assert [attempt["status"] for attempt in run["steps"]["confirm"]["attempts"]] == ["cancelled"]
    answer = post(platform, url)
    assert answer.status == 410
    assert "was cancelled" in text(answer)
    assert platform.api("GET", "/v1/approvals")["data"] == []
    platform.travel("8d")
    assert platform.run(run_id)["status"] == "cancelled"


def test_a_failed_run_closes_its_approvals(platform: Platform) -> None:
    steps = {"a": {"after": {"step": "$trigger", "wait": "1h"}}, "confirm": approval_step()}
    run_id = start(platform, definition(steps), data=script(a={"raise": "no"}))
    url = open_approval(platform, run_id)["approve_url"]
    platform.travel("1h")
    run = platform.run(run_id)
    assert (run["status"], statuses(run)) == ("failed", {"a": "failed", "confirm": "cancelled"})
    assert post(platform, url).status == 410
    assert platform.api("GET", "/v1/approvals")["data"] == []
    platform.travel("8d")
    assert platform.run(run_id) == run


def test_an_event_that_cancels_runs_closes_their_approvals(platform: Platform) -> None:
    run_id = start(platform, {**approval(), "cancel": [{"event": "stop"}]})
    platform.send("stop")
    platform.settle()
    assert statuses(platform.run(run_id))["confirm"] == "cancelled"


def test_a_rerun_asks_again_with_new_links(platform: Platform) -> None:
    run_id = start(platform)
    before = open_approval(platform, run_id)
    platform.approve(run_id)
    again = platform.rerun(run_id)
    assert again is not None
    platform.settle()
    assert open_approval(platform, again)["approve_url"] != before["approve_url"]
    assert post(platform, before["decline_url"]).status == 409
    platform.decline(again)
    assert platform.run(again)["steps"]["no"]["status"] == "completed"
    assert platform.run(run_id)["steps"]["no"]["status"] == "skipped"


def test_a_rerun_from_a_later_step_keeps_the_decision(platform: Platform) -> None:
    run_id = start(platform)
    platform.approve(run_id, by="Ada")
    again = platform.api("POST", f"/v1/runs/{run_id}/rerun", {"from_step": "yes"})["id"]
    platform.settle()
    run = platform.run(again)
    assert (run["status"], run["steps"]["confirm"]["output"]["by"]) == ("completed", "Ada")
    assert "approval" not in run["steps"]["confirm"]


def test_a_rerun_from_the_approval_asks_again(platform: Platform) -> None:
    run_id = start(platform)
    platform.decline(run_id)
    again = platform.api("POST", f"/v1/runs/{run_id}/rerun", {"from_step": "confirm"})["id"]
    platform.approve(again)
    assert platform.run(again)["steps"]["yes"]["status"] == "completed"


def test_a_replay_asks_again(platform: Platform) -> None:
    run_id = start(platform)
    event = platform.run(run_id)["event_id"]
    asked_for = {"replay": "r1", "events": [{"id": event}]}
    replayed = platform.api("POST", "/v1/functions/f/replay", asked_for)["events"][0]["run_id"]
    platform.settle()
    (value,) = [
        event["data"] for event in platform.events("stepwell/approval.requested") if event["data"]["run_id"] == replayed
    ]
    assert value["replay"] == "r1"
    platform.approve(replayed)
    assert platform.run(replayed)["status"] == "completed"
    assert platform.run(run_id)["status"] == "running"


def test_a_run_keeps_its_version_while_an_approval_is_open(platform: Platform) -> None:
    run_id = start(platform, approval(message="Old?"))
    platform.push(approval(message="New?"), canary=0.5)
    platform.deploy(approval(message="Newer?"))
    assert open_approval(platform, run_id)["message"] == "Old?"
    platform.approve(run_id)
    assert platform.run(run_id)["status"] == "completed"


def test_erasing_a_user_erases_comments_on_approvals(platform: Platform) -> None:
    platform.deploy(function(id="mailer", on="stepwell/approval.requested"))
    fields = approval(message="Pay {{ user.email }}?")
    decided = start(platform, fields, user={"email": "ada@example.com"})
    url = open_approval(platform, decided)["approve_url"]
    platform.approve(decided, comment="for Ada", by="Bob")
    (opened,) = platform.runs(platform.send(user={"email": "ada@example.com"}))
    other = open_approval(platform, opened["id"])["approve_url"]
    data = platform.api("GET", "/v1/events?name=stepwell/approval.requested")["data"]
    assert [item["data"]["message"] for item in data] == ["Pay ada@example.com?"] * 2
    while not platform.api("DELETE", "/v1/users/ada@example.com")["done"]:
        pass
    run = platform.run(decided)
    assert run["steps"]["confirm"]["output"] is None
    assert platform.run(opened["id"])["status"] == "cancelled"
    page = platform.http("GET", path(url), b"", NO_KEY)
    assert page.status == 200
    assert not re.search("ada@|for Ada|Bob", text(page))
    with pytest.raises(Refused, match="the decision is no longer stored"):
        platform.api("POST", f"/v1/approvals/{token(url)}")
    assert post(platform, other).status == 410
    assert "ada@" not in text(post(platform, other))
    data = platform.api("GET", "/v1/events?name=stepwell/approval.requested")["data"]
    assert [(item["data"], item["erased"]) for item in data] == [({}, True)] * 2


# --- definitions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "pointer", "message"),
    [
        ({"path": "file://steps"}, "/steps/confirm/path", "executes nothing"),
        ({"env": {"A": "b"}}, "/steps/confirm/env", "executes nothing"),
        ({"secrets": ["A"]}, "/steps/confirm/secrets", "executes nothing"),
        ({"retries": {"attempts": 2}}, "/steps/confirm/retries", "executes nothing"),
        ({"timeout": "367d"}, "/steps/confirm/timeout", "366 days"),
        (
            {"timeout": "1d", "runtime": {"type": "approval", "message": "?", "timeout": "2d"}},
            "/steps/confirm/runtime/timeout",
            "remove one of them",
        ),
        ({"runtime": {"type": "approval"}}, "/steps/confirm/runtime/message", "is missing"),
        ({"runtime": {"type": "approval", "message": ""}}, "/steps/confirm/runtime/message", "must not be empty"),
        ({"runtime": {"type": "approval", "message": "x" * 2001}}, "/steps/confirm/runtime/message", "2,000"),
        ({"runtime": {"type": "approval", "message": 7}}, "/steps/confirm/runtime/message", "text"),
        ({"runtime": {"type": "approval", "message": "?", "approvers": "Ada"}}, "/steps/confirm/runtime/approvers", ""),
        (
            {"runtime": {"type": "approval", "message": "?", "url": "x"}},
            "/steps/confirm/runtime/url",
            "only the runtime http has `url`",
        ),
        ({"runtime": {"type": "approval", "message": "{{ 1 + }}"}}, "/steps/confirm/runtime/message", "expression"),
        ({"runtime": {"type": "approval", "message": "{{ steps.no }}"}}, "/steps/confirm/runtime/message", "before"),
        ({"runtime": {"type": "approval", "message": "{{ response }}"}}, "/steps/confirm/runtime/message", "response"),
    ],
)
def test_an_invalid_approval_step_is_refused_with_a_pointer(
    platform: Platform, step: Json, pointer: str, message: str
) -> None:
    fields = approval()
    fields["steps"]["confirm"].update(step)
    with pytest.raises(Refused) as refused:
        platform.deploy(fields)
    problems = {error["pointer"]: error["message"] for error in refused.value.errors}
    assert list(problems) == [pointer]
    assert message in problems[pointer]
