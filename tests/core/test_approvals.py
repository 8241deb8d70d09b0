"""Tests the links and messages of approvals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.core.compile import compile_plan
from stepwell.core.definition.definition import DefinitionError, parse_definition
from stepwell.core.events.events import internal_event
from stepwell.core.plan import Plan, Runtime
from stepwell.core.run.approvals import (
    Link,
    Links,
    Message,
    Standing,
    approval_message,
    decided,
    placeholders,
    requested_event,
    standing,
)
from stepwell.core.run.run import Run, StepStatus, new_run
from stepwell.core.signing import single_key

NOW, HOUR = 1_780_000_000_000, 3_600_000
RUN = "abcdefghijklmnopqrstuvwxyz"
LINKS = Links("https://stepwell.example/", single_key(b"secret"))
LINK = Link(RUN, 0, 1, "approved", NOW + HOUR)


def plan_of(message: str = "Really?", **steps: Any) -> Plan:
    ask = {"runtime": {"type": "approval", "message": message, "approvers": ["Ada"]}, "timeout": "1h"}
    after = [{"step": step} for step in steps]
    raw = {"id": "f", "triggers": [{"event": "go"}], "steps": {"ask": {**ask, "after": after}, **steps}}
    return compile_plan(parse_definition(raw).normalised(), 3)


def run_of(plan: Plan, status: StepStatus = StepStatus.RUNNING, **state: Any) -> Run:
    run = new_run(RUN, plan, NOW)
    first = run.steps[0]._replace(status=status, attempt=1, at=NOW, **state)
    return run._replace(steps=(first, *run.steps[1:]))


# --- links -----------------------------------------------------------------------------------------------------------


def test_a_token_can_be_read_with_the_secret() -> None:
    plan = plan_of()
    approve, decline = LINKS.of(plan, run_of(plan), 0)
    assert approve.startswith(f"https://stepwell.example/approvals/{RUN}.0.1.a.{NOW + HOUR}.")
    assert LINKS.read(approve.rpartition("/")[2]) == LINK
    assert LINKS.read(decline.rpartition("/")[2]) == Link(RUN, 0, 1, "declined", NOW + HOUR)
    assert Links("https://stepwell.example", single_key(b"another")).read(approve.rpartition("/")[2]) is None


def test_different_links_have_different_tokens() -> None:
    links = [
        Link(run, step, attempt, decision, until)
        for run in (RUN, RUN[::-1])
        for step in (0, 1, 11)
        for attempt in (1, 11)
        for decision in ("approved", "declined")
        for until in (1, 11)
    ]
    tokens = {LINKS.token(link).rpartition(".")[2] for link in links}
    assert len(tokens) == len(links)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 200), st.text(max_size=3))
def test_an_altered_token_is_refused(place: int, text: str) -> None:
    token = LINKS.token(LINK)
    place = min(place, len(token))
    for altered in (token[:place] + text + token[place:], token[:place] + text + token[place + len(text) :]):
        assert altered == token or LINKS.read(altered) is None


@pytest.mark.parametrize("token", ["", ".", "a" * 10_000, "\u0661" * 5, f"{RUN}.0.1.a.1.{'0' * 32}", "\ud800", "\x00"])
def test_a_text_that_is_not_a_token_is_refused(token: str) -> None:
    assert LINKS.read(token) is None


@pytest.mark.parametrize(
    ("status", "at", "stands"),
    [
        (StepStatus.RUNNING, NOW + HOUR - 1, Standing.OPEN),
        (StepStatus.RUNNING, NOW + HOUR, Standing.EXPIRED),
        (StepStatus.COMPLETED, NOW + 9 * HOUR, Standing.DECIDED),
        (StepStatus.FAILED, NOW, Standing.EXPIRED),
        (StepStatus.CANCELLED, NOW, Standing.OVER),
    ],
)
def test_the_state_of_an_approval(status: StepStatus, at: int, stands: Standing) -> None:
    run = run_of(plan_of(), status)
    assert standing(run, LINK, at) is stands
    assert standing(run, Link(RUN, 0, 2, "approved", NOW + HOUR), at) is Standing.OVER


def test_a_decision_is_an_output() -> None:
    outcome = decided("declined", " no\x1b[31m\r\n ", " A\nda ", NOW)
    assert outcome.output is not None
    assert orjson.loads(outcome.output) == {
        "decision": "declined",
        "approved": False,
        "comment": "no",
        "by": "A da",
        "decided_at": "2026-05-28T20:26:40.000Z",
    }
    silent = decided("approved", " ", "\x00", NOW).output
    assert silent is not None
    assert orjson.loads(silent) | {"decided_at": ""} == {
        "decision": "approved", "approved": True, "comment": None, "by": None, "decided_at": ""
    }  # fmt: skip


# --- messages --------------------------------------------------------------------------------------------------------

EVENT = {"name": "go", "data": {"n": 3, "list": [1, "a"], "text": "{{ data.n }}"}, "user": {"email": "ada@example.com"}}


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("plain", "plain"),
        ("{{data.n}} and {{ data.n + 1 }}", "3 and 4"),
        ("{{ data.list }}", '[1,"a"]'),
        ("{{ data.text }}", "{{ data.n }}"),
        ("{{ has(data.missing) ? 'x' : 'none' }}", "none"),
        ("{{\n  event.name\n}}", "go"),
        ("{{ steps.a.ok }}", "true"),
        ("{{ errors.b.kind }}", "exit"),
        ("{ {data.n} }", "{ {data.n} }"),
        ("é\U0001f44d", "é\U0001f44d"),
        ("x" * 1999 + "{{ 'yyy' }}", "x" * 1997 + "..."),
    ],
)
def test_a_message_shows_values(message: str, shown: str) -> None:
    assert message_of(message) == Message(shown)


@pytest.mark.parametrize(
    ("message", "shown", "why"),
    [
        ("{{ data.missing }} {{ user.email }}", "{{ data.missing }} ada@example.com", 'there is no key "missing"'),
        ("{{ steps.c.n }}", "{{ steps.c.n }}", 'there is no key "c"'),
        ("{{ bytes('x') }}", "{{ bytes('x') }}", "which JSON cannot represent"),
        ("{{ data.n / 0 }}{{ data.a }}{{ 1 }}", "{{ data.n / 0 }}{{ data.a }}1", "zero, `{{ data.a }}` has no value"),
    ],
)
def test_a_message_whose_placeholder_has_no_value_is_an_error_that_names_it(message: str, shown: str, why: str) -> None:
    found = message_of(message)
    assert (found.text, found.error is not None) == (shown, True)
    assert found.error is not None
    assert found.error.kind == "message_failed"
    assert why in found.error.message


def message_of(message: str) -> Message:
    code = {"path": "file://.", "runtime": {"type": "lambda", "handler": "app.f"}}
    plan = plan_of("Really?", a=code, b=code, c=code)
    first = replace(
        plan.steps[0], runtime=Runtime("approval", message=message)
    )  # a definition would refuse some of these messages
    plan = replace(plan, steps=(first, *plan.steps[1:]))
    run = run_of(plan, unseen=(3,))
    return approval_message(plan, run, 0, EVENT, {1: b'{"ok":true}', 3: b'{"n":1}'}, {2: b'{"kind":"exit"}'})


def test_placeholders_are_found() -> None:
    assert placeholders("a {{ b }} {{c}} {d} {{ {'e': 1}['e'] }}") == ["b", "c", "{'e': 1}['e']"]


@pytest.mark.parametrize("name", ["stepwell/run.completed", "stepwell/run.failed", "stepwell/approval.requested"])
def test_runs_started_by_engine_events_send_no_approval_requests(name: str) -> None:
    plan = plan_of()
    trigger = internal_event(name, {}, {}, "e", NOW)
    assert requested_event(plan, run_of(plan), 0, trigger, "?", LINKS, NOW) is None


def test_the_event_contains_everything_needed_to_ask_for_a_decision() -> None:
    plan = plan_of()
    run = run_of(plan)
    event = requested_event(plan, run, 0, internal_event("go", {}, {"id": "u"}, "e", NOW), "Pay?", LINKS, NOW, "r1")
    assert event is not None
    approve, decline = LINKS.of(plan, run, 0)
    assert (event.id, event.name, event.user) == (f"approval:{RUN}:ask:1", "stepwell/approval.requested", {"id": "u"})
    assert event.data == {
        "run_id": RUN,
        "function_id": "f",
        "function_version": 3,
        "step_id": "ask",
        "message": "Pay?",
        "approvers": ["Ada"],
        "approve_url": approve,
        "decline_url": decline,
        "expires_at": "2026-05-28T21:26:40.000Z",
        "replay": "r1",
    }


def test_a_definition_with_an_approval_can_be_read_again() -> None:
    raw = {"id": "f", "triggers": [{"event": "go"}], "steps": {"a": {"runtime": {"type": "approval", "message": "?"}}}}
    definition = parse_definition(raw)
    assert parse_definition(definition.normalised()).normalised() == definition.normalised()
    assert definition.normalised()["steps"]["a"]["timeout"] == "7d"
    with pytest.raises(DefinitionError, match="approval"):
        parse_definition({**raw, "steps": {"a": {"runtime": {"message": "?"}}}})
