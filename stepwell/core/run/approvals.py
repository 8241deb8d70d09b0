"""Approvals: what people are asked, the links by which they decide, and what a decision is as an outcome.

One rule: a link's token is the authority to make one decision on one attempt until one moment, and nothing else. It
names all of these, and ends with a signature of them (`core.signing`).

`requested_event` has eight parameters: an event that names everything has to be given everything.
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
    """What a link allows. `decision`: approved or declined; `expires_at`: ms since the epoch."""

    run_id: str
    step: int
    attempt: int
    decision: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class Links:
    """Makes the links of approvals, and reads them. `url` is the address at which people reach the API."""

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
        text = f"{link.run_id}.{link.step}.{link.attempt}.{link.decision[0]}.{link.expires_at}"
        return f"{text}.{self.keys.sign(signed_text(text))}"

    def read(self, token: str) -> Link | None:
        """What a token allows; None for one that was not made here. Raises KeysUnreadable, UnknownKey."""
        found = _TOKEN.fullmatch(token)
        if found is None:
            return None
        text, run_id, step, attempt, letter, until, signature = found.groups()
        if not self.keys.is_signature(signature, signed_text(text)):
            return None
        decision = next(decision for decision in DECISIONS if decision[0] == letter)
        return Link(run_id, int(step), int(attempt), decision, int(until))


# --- how an approval stands ------------------------------------------------------------------------------------------


class Standing(Enum):
    OPEN = "open"
    DECIDED = "decided"
    EXPIRED = "expired"
    OVER = "over"  # the run ended before anybody decided


def standing(run: Run, link: Link, now: int) -> Standing:
    """The standing of the attempt that a link is for."""
    state = run.steps[link.step]
    if state.attempt != link.attempt:
        return Standing.OVER
    if state.status is StepStatus.RUNNING:
        return Standing.OPEN if now < link.expires_at else Standing.EXPIRED
    ended = {StepStatus.COMPLETED: Standing.DECIDED, StepStatus.FAILED: Standing.EXPIRED}
    return ended.get(state.status, Standing.OVER)


def expires_at(plan: Plan, run: Run, step: int) -> int:
    """Until when people may decide on an approval that is open, in ms since the epoch."""
    return run.steps[step].at + plan.steps[step].timeout_ms


def decided(decision: str, comment: str | None, by: str | None, now: int) -> Outcome:
    """The outcome of an attempt on which somebody decided. Control characters in what people wrote are removed."""
    output = {
        "decision": decision,
        "approved": decision == "approved",
        "comment": printable(comment).strip() or None if comment else None,
        "by": " ".join(printable(by).split()) or None if by else None,
        "decided_at": time_text(now),
    }
    return Outcome(output=orjson.dumps(output))


# --- what people are asked -------------------------------------------------------------------------------------------


def placeholders(message: str) -> list[str]:
    """The expressions in a message."""
    return [source.strip() for source in _PLACEHOLDER.findall(message)]


def has_values(message: str) -> bool:
    """Whether the message may have placeholders."""
    return "{{" in message


@dataclass(frozen=True, slots=True)
class Message:
    """The step's message with its values. `error` is set if a placeholder has no value: then nobody is asked, and
    `text` keeps the placeholder."""

    text: str
    error: Error | None = None


def asked(
    plan: Plan, run: Run, step: int, event: dict[str, Any], outputs: Mapping[int, bytes], errors: Mapping[int, bytes]
) -> Message:
    message = plan.steps[step].runtime.message
    if not has_values(message):
        return Message(printable(message))
    seen = [a for a in plan.steps[step].ancestors if a not in run.steps[step].unseen]
    bindings = Bindings(event, _by_id(plan, outputs, seen), _by_id(plan, errors, seen))
    missing: list[str] = []

    def shown(placeholder: re.Match[str]) -> str:
        value = compile_value(placeholder[1].strip(), Scope.MESSAGE).value(bindings)
        if value.problem is not None:
            missing.append(f"`{placeholder[0]}` has no value: {value.problem}")
            return placeholder[0]
        return value.value if isinstance(value.value, str) else orjson.dumps(value.value).decode()

    text = printable(_PLACEHOLDER.sub(shown, message))
    return Message(text, _no_message(plan.steps[step].id, missing) if missing else None)


def _no_message(step_id: str, missing: list[str]) -> Error:
    message = (
        f"nobody can be asked `{step_id}`, since {', '.join(missing)}; where something may be missing, write has(...) "
        "first, as in {{ has(data.x) ? data.x : 'none' }}"
    )
    return Error("message_failed", printable(message))


def _by_id(plan: Plan, results: Mapping[int, bytes], steps: Iterable[int]) -> dict[str, Any]:
    found = {}
    for step in steps:
        with suppress(KeyError):  # also of one that is not stored any more
            found[plan.steps[step].id] = orjson.loads(results[step])
    return found


def requested_event(
    plan: Plan, run: Run, step: int, trigger: Event, message: str, links: Links, now: int, replay: str | None = None
) -> Event | None:
    """The event `stepwell/approval.requested`. None for a run that such an event, or the end of a run, has started: no
    function can ask itself for ever."""
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
