"""Approvals: the message that people read, the links with which they decide, and the outcome of a decision.

The token in a link allows one decision on one attempt until a given time, and nothing else. It contains run, step,
attempt, decision and time, and ends with a signature of them (`core.signing`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

import orjson

from stepwell.core.cel.expressions import Bindings, Scope, compile_value
from stepwell.core.events.engine_ids import EngineId
from stepwell.core.events.events import Event, internal_event
from stepwell.core.plan import Plan
from stepwell.core.run.messages import Error, Outcome
from stepwell.core.run.outcome import printable
from stepwell.core.run.run import Run, StepStatus
from stepwell.core.run.run_events import RUN_EVENTS
from stepwell.core.run.stored_links import REQUESTED, TEXT, signed_text
from stepwell.core.signing import SIGNATURE, Signer
from stepwell.core.times import time_text

DECISIONS = ("approved", "declined")
MOST_COMMENT = 2000  # characters
MOST_BY = 256
_PLACEHOLDER = re.compile(r"\{\{(.+?)\}\}", re.DOTALL)
_TOKEN = re.compile(rf"({TEXT})\.({SIGNATURE})", re.ASCII)
_CAUSED_BY_US = (RUN_EVENTS, "stepwell/approval.")


@dataclass(frozen=True, slots=True)
class Link:
    """The content of a link. `decision`: approved or declined. `expires_at`: ms since the epoch."""

    run_id: str
    step: int
    attempt: int
    decision: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class Links:
    """Creates and reads the links of approvals. `url`: the public address of the API."""

    url: str
    keys: Signer

    def of(self, plan: Plan, run: Run, step: int) -> tuple[str, str]:
        """The links to approve and to decline an open approval. Raises KeysUnreadable."""
        until, attempt = expires_at(plan, run, step), run.steps[step].attempt
        approve, decline = (
            f"{self.url.rstrip('/')}/approvals/{self.token(Link(run.id, step, attempt, decision, until))}"
            for decision in DECISIONS
        )
        return approve, decline

    def token(self, link: Link) -> str:
        """The signed token of a link. Raises KeysUnreadable."""
        text = f"{link.run_id}.{link.step}.{link.attempt}.{link.decision[0]}.{link.expires_at}"
        return f"{text}.{self.keys.sign(signed_text(text))}"

    def read(self, token: str) -> Link | None:
        """The content of a token; None if the token is invalid. Raises KeysUnreadable, UnknownKey."""
        found = _TOKEN.fullmatch(token)
        if found is None:
            return None
        text, run_id, step, attempt, letter, until, signature = found.groups()
        if not self.keys.is_signature(signature, signed_text(text)):
            return None
        decision = next(decision for decision in DECISIONS if decision[0] == letter)
        return Link(run_id, int(step), int(attempt), decision, int(until))


# --- the state of an approval ----------------------------------------------------------------------------------------


class Standing(Enum):
    """The state of an approval for the holder of a link."""

    OPEN = "open"
    DECIDED = "decided"
    EXPIRED = "expired"
    OVER = "over"  # the run ended before a decision


def standing(run: Run, link: Link, now: int) -> Standing:
    """The state of the attempt that a link is for."""
    state = run.steps[link.step]
    if state.attempt != link.attempt:
        return Standing.OVER
    if state.status is StepStatus.RUNNING:
        return Standing.OPEN if now < link.expires_at else Standing.EXPIRED
    ended = {StepStatus.COMPLETED: Standing.DECIDED, StepStatus.FAILED: Standing.EXPIRED}
    return ended.get(state.status, Standing.OVER)


def expires_at(plan: Plan, run: Run, step: int) -> int:
    """The time until which people may decide on an open approval, in ms since the epoch."""
    return run.steps[step].at + plan.steps[step].timeout_ms


def decided(decision: str, comment: str | None, by: str | None, now: int) -> Outcome:
    """The outcome of an attempt after a decision. Control characters in `comment` and `by` are removed."""
    output = {
        "decision": decision,
        "approved": decision == "approved",
        "comment": printable(comment).strip() or None if comment else None,
        "by": " ".join(printable(by).split()) or None if by else None,
        "decided_at": time_text(now),
    }
    return Outcome(output=orjson.dumps(output))


# --- the message -----------------------------------------------------------------------------------------------------


def placeholders(message: str) -> list[str]:
    """The expressions in the placeholders of a message."""
    return [source.strip() for source in _PLACEHOLDER.findall(message)]


def has_values(message: str) -> bool:
    """Whether the message may have placeholders."""
    return "{{" in message


@dataclass(frozen=True, slots=True)
class Message:
    """The message of an approval with the values filled in.

    `error` is set if a placeholder has no value. Then the step fails without asking anyone, and `text` contains the
    placeholder.
    """

    text: str
    error: Error | None = None


def approval_message(
    plan: Plan, run: Run, step: int, event: dict[str, Any], outputs: Mapping[int, bytes], errors: Mapping[int, bytes]
) -> Message:
    """The message of an approval step for a run. `event` is the event of the run; `outputs` and `errors` by step."""
    message = plan.steps[step].runtime.message
    if not has_values(message):
        return Message(printable(message))
    ended = [a for a in plan.steps[step].ancestors if a not in run.steps[step].unseen]
    bindings = Bindings(event, _by_id(plan, outputs, ended), _by_id(plan, errors, ended))
    missing: list[str] = []

    def fill_in(placeholder: re.Match[str]) -> str:
        value = compile_value(placeholder[1].strip(), Scope.MESSAGE).value(bindings)
        if value.problem is not None:
            missing.append(f"`{placeholder[0]}` has no value: {value.problem}")
            return placeholder[0]
        return value.value if isinstance(value.value, str) else orjson.dumps(value.value).decode()

    text = printable(_PLACEHOLDER.sub(fill_in, message))
    return Message(text, _no_message(plan.steps[step].id, missing) if missing else None)


def _no_message(step_id: str, missing: list[str]) -> Error:
    message = (
        f"the approval `{step_id}` cannot be requested, because {', '.join(missing)}; if a value may be missing, check "
        "it with has(...), as in {{ has(data.x) ? data.x : 'none' }}"
    )
    return Error("message_failed", printable(message))


def _by_id(plan: Plan, results: Mapping[int, bytes], steps: Iterable[int]) -> dict[str, Any]:
    found = {}
    for step in steps:
        with suppress(KeyError):  # the step has no result, or it is deleted
            found[plan.steps[step].id] = orjson.loads(results[step])
    return found


def requested_event(
    plan: Plan, run: Run, step: int, trigger: Event, message: str, links: Links, now: int, replay: str | None = None
) -> Event | None:
    """The event `stepwell/approval.requested`.

    None if the run was started by such an event or by the end of a run, so that no function can trigger itself forever.
    """
    if trigger.name.startswith(_CAUSED_BY_US):
        return None
    value, attempt = plan.steps[step], run.steps[step].attempt
    approve_url, decline_url = links.of(plan, run, step)
    data = {
        "run_id": run.id,
        "function_id": plan.function_id,
        "function_version": plan.version,
        "step_id": value.id,
        "message": message,
        "approvers": list(value.runtime.approvers),
        "approve_url": approve_url,
        "decline_url": decline_url,
        "expires_at": time_text(expires_at(plan, run, step)),
        **({} if replay is None else {"replay": replay}),
    }
    return internal_event(REQUESTED, data, trigger.user, f"{EngineId.APPROVAL}{run.id}:{value.id}:{attempt}", now)
