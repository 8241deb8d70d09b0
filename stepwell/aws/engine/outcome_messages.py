"""What the messages of the queue `outcomes` say about runs.

Every step's role may send such messages, since Lambda sends outcomes with it. One rule: what nobody but the engine can
know, such as an outcome, a tick or what was lost, is believed only with its token, and anything else only if it is due
by what is stored: so a timer by its run.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

import orjson

from stepwell.aws.engine.store import DynamoStore
from stepwell.aws.engine.sweep import from_rows, overdue
from stepwell.aws.engine.timers import Timers
from stepwell.aws.engine.wait_pages import Waking
from stepwell.aws.observability import count
from stepwell.aws.queues.messages import (
    CANCEL,
    MAX_DELAY_MS,
    again_message,
    cancel_message,
    delay_s,
    entry,
    far_timer_key,
    look_name,
    read_timer,
    sweep_name,
    tell_name,
    tick_message,
    tick_name,
    wake_name,
)
from stepwell.aws.queues.outbox import send_messages
from stepwell.aws.signing.tokens import Tokens
from stepwell.aws.steps.dispatch import LambdaDispatcher
from stepwell.aws.steps.outcomes import outcome_of_destination, read_body
from stepwell.core.events.cron import tick_event
from stepwell.core.events.events import event_from, run_id
from stepwell.core.plan import Plan, Step
from stepwell.core.run.messages import (
    AttemptEnded,
    AttemptLost,
    AttemptStarted,
    CancelRequested,
    DeadlinePassed,
    Fact,
    Outcome,
    Timer,
    TimerKind,
)
from stepwell.core.run.outcome import failure
from stepwell.core.run.run import RunStatus, StepStatus
from stepwell.engine import Engine, IncomingEvent, RunFact
from stepwell.platform import Cause, RunRecord

log = logging.getLogger("stepwell.aws")
_RUN_ID = re.compile(r"[a-z2-7]{26}")
_REQUEST_ID = re.compile(r"[0-9a-f-]{32,36}")
_CANCELLED_AT_ONCE = 100
_OLDEST = 10  # of an invocation that expired, a tenth of its age is the pause before it is tried again

Read = tuple[list[IncomingEvent], list[RunFact]]


class Facts:
    def __init__(
        self,
        store: DynamoStore,
        engine: Engine,
        tokens: Tokens,
        waking: Waking,
        dispatcher: LambdaDispatcher,
        timers: Timers,
        cache_s: float,
    ) -> None:
        self._store, self._engine, self._tokens, self._waking = store, engine, tokens, waking
        self._dispatcher, self._timers, self._cache_s = dispatcher, timers, cache_s

    def load(self, records: Sequence[Any]) -> None:
        """Read the runs that a batch is about with one request. A message that cannot be read fails later, alone."""
        runs = set()
        for record in records:
            with suppress(Exception):
                runs.add(_run_of(read_body(record["body"].encode())))
        self._store.load(sorted(run for run in runs if isinstance(run, str) and _RUN_ID.fullmatch(run)))

    def read(self, record: Any, cause: Cause, now: int) -> Read:
        """The events and facts of one message."""
        body = read_body(record["body"].encode())
        if "requestPayload" in body:
            return [], self._destination(body, cause, now)
        if body.get("detail-type") == "ECS Task State Change":
            return [], self._task(body, cause, now)
        match body["stepwell"]:
            case "timer":
                return [], self._timer(body, cause, now)
            case "tick":
                return self._tick(body, cause, now), []
            case "wake":
                return [], self._wake(body, cause, now)
            case "outcome":
                outcome = failure(body["error"]["kind"], body["error"]["message"], retryable=body["error"]["retryable"])
                return [], self._ended(body, body["token"], outcome, cause)
            case "look":
                return [], self._look(body, cause, now)
            case "release":
                return [], self._release(body, cause, now)
            case "cancel":
                return [], self._cancel(body["function"], body["before"], body["token"], cause)
            case "again":
                return [], self._again(body, cause)
            case "tell":
                return self._tell(body["event"], body["token"], cause), []
            case "ended":
                return [], self._told_again(body["run"], cause)
            case "sweep":
                return [], self._sweep(body, cause, now)
            case "stop":
                return [], self._stop(body["run"])
            case kind:
                raise ValueError(f"a message of the unknown kind {kind!r}")

    # --- attempts --------------------------------------------------------------------------------------------------

    def _destination(self, body: dict[str, Any], cause: Cause, now: int) -> list[RunFact]:
        ctx = _ctx_of(body)
        name = {"run": ctx["run_id"], "step": ctx["step_id"], "attempt": ctx["attempt"]}
        found = self._find(name, ctx.get("token"))
        if found is None:
            return []
        record, step = found
        request_id = body["requestContext"]["requestId"]
        if isinstance(request_id, str) and _REQUEST_ID.fullmatch(request_id):  # what is kept must be readable again
            self._store.request_ids[name["run"], step, name["attempt"]] = request_id
        if body["requestContext"]["condition"] == "EventAgeExceeded":
            return self._try_again(record, step, name, ctx["token"], cause, now)
        outcome = outcome_of_destination(body, record.plan.steps[step], now)
        return [RunFact(name["run"], AttemptEnded(step, name["attempt"], outcome), cause)]

    def _task(self, body: dict[str, Any], cause: Cause, now: int) -> list[RunFact]:
        stopped = self._dispatcher.containers.outcome_of_stopped_task(body, now)
        if stopped is None:
            return []
        name = {"run": stopped.run_id, "step": stopped.step, "attempt": stopped.attempt}
        found = self._find(name, stopped.token)
        if found is not None:
            self._store.request_ids[stopped.run_id, found[1], stopped.attempt] = stopped.task
        return self._ended(name, stopped.token, stopped.outcome, cause)

    def _ended(self, name: dict[str, Any], token: object, outcome: Outcome | None, cause: Cause) -> list[RunFact]:
        found = self._find(name, token)
        if found is None:
            return []
        step, attempt = found[1], name["attempt"]
        fact = AttemptLost(step, attempt) if outcome is None else AttemptEnded(step, attempt, outcome)
        return [RunFact(name["run"], fact, cause)]

    def _find(self, name: dict[str, Any], token: object) -> tuple[RunRecord, int] | None:
        """The run of an attempt, and its step's index; None if the attempt's outcome is not to be believed."""
        run_id, step_id, attempt = name["run"], name["step"], name["attempt"]
        if not self._tokens.is_valid(token, run_id, step_id, attempt):
            count("OutcomesRefused")
            log.error("an outcome for step %r of run %r without its token is refused", step_id, run_id)
            return None
        record = self._store.load([run_id]).get(run_id)
        if record is None:
            log.warning("an outcome of run %s comes after the run was deleted", run_id)
            return None
        return record, _index(record.plan.steps, step_id)

    def _try_again(
        self, record: RunRecord, step: int, name: dict[str, Any], token: str, cause: Cause, now: int
    ) -> list[RunFact]:
        """The invocation waited too long in Lambda's queue and was never started: neither a loss nor a failure. The
        fact is known already, so that it only writes down when the attempt is claimed next: the sweeper waits from then
        on."""
        state = record.run.steps[step]
        if state.status is not StepStatus.RUNNING or state.attempt != name["attempt"]:
            return []
        log.warning("attempt %s of step %s of run %s was never started", name["attempt"], name["step"], name["run"])
        due = now + min(MAX_DELAY_MS, max(1000, (now - state.at) // _OLDEST))
        message = again_message(name["run"], name["step"], name["attempt"], token, due)
        send_messages(self._dispatcher.outcomes_queue, [entry(message, delay_s(due, now))])
        record.causes[step] = (cause.id, due)
        return [RunFact(name["run"], AttemptStarted(step, name["attempt"]), Cause(cause.id, redelivered=False))]

    def _again(self, body: dict[str, Any], cause: Cause) -> list[RunFact]:
        found = self._find(body, body["token"])
        if found is None:
            return []
        return [RunFact(body["run"], AttemptStarted(found[1], body["attempt"]), Cause(cause.id, redelivered=True))]

    def _stop(self, run_id: str) -> list[RunFact]:
        record = self._store.load([run_id]).get(run_id)
        if record is not None and record.run.status is RunStatus.CANCELLED:  # and nobody can have others stopped
            self._dispatcher.containers.stop(run_id)
        return []

    def _sweep(self, body: dict[str, Any], cause: Cause, now: int) -> list[RunFact]:
        """What the sweeper found of a run, but for timers that are not late here: its clock may be ahead. A container
        that was given up must not run on."""
        run_id, rows = body["run"], body["facts"]
        if not self._tokens.is_valid(body.get("token"), *sweep_name(run_id, rows)):
            log.error("a message that facts of run %r are overdue is refused", run_id)
            return []
        record = self._store.load([run_id]).get(run_id)
        if record is None:
            return []
        late = overdue(record, now, 0)
        facts = [row for row in from_rows(rows, record.plan) if row in late or _is_silence(row, record.plan)]
        self._store.look_for_waiting(record)  # an earlier version of Stepwell left outcomes to wait in any long run
        for fact in facts:
            if isinstance(fact, AttemptLost) and record.plan.steps[fact.step].runtime.type == "docker":
                self._dispatcher.containers.stop(run_id, record.plan.steps[fact.step].id, fact.attempt)
        return [RunFact(run_id, fact, cause) for fact in facts]

    # --- time ------------------------------------------------------------------------------------------------------

    def _timer(self, body: dict[str, Any], cause: Cause, now: int) -> list[RunFact]:
        run_id, timer = read_timer(body)
        record = self._store.load([run_id]).get(run_id)
        item = far_timer_key(body)
        if item is not None and body["due"] <= now:
            self._store.forget_timer(item, None if record is None else run_id, timer)
        if record is None or not self._timers.is_due(record.plan, record.run, timer, now):
            return []
        return [RunFact(run_id, timer.fact(), cause)]

    def _tick(self, body: dict[str, Any], cause: Cause, now: int) -> list[IncomingEvent]:
        """A tick of a cron trigger, unless the function was changed since."""
        function_id, cron, timezone, at, due = (body[name] for name in ("function", "cron", "timezone", "at", "due"))
        if not self._tokens.is_valid(body.get("token"), *tick_name(function_id, cron, timezone, at)):
            count("OutcomesRefused")
            log.error("a tick of %r at %r without its token is refused", function_id, at)
            return []
        plan = self._store.catalog().live.get(function_id)
        is_known = plan is not None and (cron, timezone) in [(t.cron, t.timezone) for t in plan.triggers]
        if self._store.catalog().is_paused(function_id):
            pass  # once it is resumed, the latest that was missed is sent again
        elif is_known and at <= now:
            return [IncomingEvent(event_from(tick_event(function_id, cron, at)), only=function_id, cause=cause)]
        elif is_known:  # the clock here is behind
            self._tick_later(body, at, now)
        elif due == at:  # once more: what is known here may be older than the newest push
            later = now + min(MAX_DELAY_MS, round(self._cache_s * 1000) + 1000)
            self._tick_later(body, max(at, later), now)
        return []

    def _tick_later(self, body: dict[str, Any], due: int, now: int) -> None:
        name = (body["function"], body["cron"], body["timezone"], body["at"])
        message = tick_message(*name, body["token"], due)
        send_messages(self._dispatcher.outcomes_queue, [entry(message, delay_s(due, now))])

    # --- events ----------------------------------------------------------------------------------------------------

    def _tell(self, text: str, token: object, cause: Cause) -> list[IncomingEvent]:
        """One of the engine's own events."""
        event = event_from(orjson.loads(text), text.encode())
        if not self._tokens.is_valid(token, *tell_name(event.id, text)):
            log.error("an event %r of the engine without its token is refused", event.id)
            return []
        return [IncomingEvent(event, cause=cause)] if self._dispatcher.emit(event) else []

    def _told_again(self, run_id: str, cause: Cause) -> list[RunFact]:
        """The end of a run; whoever ended it may have died before telling of it. To cancel what has ended changes
        nothing."""
        record = self._store.load([run_id]).get(run_id)
        if record is None or record.run.ended_at is None:
            return []
        return [RunFact(run_id, CancelRequested(), cause)]

    def _release(self, body: dict[str, Any], cause: Cause, now: int) -> list[RunFact]:
        """Events that were kept for a function that is not paused any more; or not live, then they are forgotten."""
        function_id = body["function"]
        is_live, kept = self._store.kept.page(function_id, body["after"])
        events = self._store.events([event_id for event_id, _ in kept])
        found = [events[event_id] for event_id, _ in kept if event_id in events] if is_live else []
        self._store.look_again()  # as paused as it was some seconds ago, it would drop them
        facts = self._engine.release(function_id, found, cause, now)
        started = {fact.run_id for fact in facts}
        for event_id, key in kept:
            text = run_id(function_id, event_id)
            self._store.forget_kept(key, text if text in started else None)
        return facts

    def _cancel(self, function_id: str, before: int | None, token: str, cause: Cause) -> list[RunFact]:
        """A page of the open runs, of which those of one function are cancelled, as long as it is deleted."""
        if not self._tokens.is_valid(token, function_id, CANCEL, 0) or not self._store.is_deleted(function_id):
            log.error("a request to cancel the runs of %r is refused", function_id)
            return []
        page = self._store.lists.runs_of_status("running", before, _CANCELLED_AT_ONCE)
        entries = list(islice(page, _CANCELLED_AT_ONCE))
        records = self._store.load([run for _, run in entries]).values()
        found = [record for record in records if record.plan.function_id == function_id]
        if len(entries) == _CANCELLED_AT_ONCE:
            following = cancel_message(function_id, entries[-1][0] + 1, token)
            send_messages(self._dispatcher.outcomes_queue, [entry(following)])
        return [RunFact(run_record.run.id, CancelRequested(), cause) for run_record in found]

    def _wake(self, body: dict[str, Any], cause: Cause, now: int) -> list[RunFact]:
        name = body["event"], body["partition"], body["after"]
        if not self._tokens.is_valid(body.get("token"), *wake_name(*name)):
            log.error("a message that event %r wakes more runs is refused", body["event"])
            return []
        events = self._store.events([body["event"]])
        waits = self._waking.page(*name)
        return [fact for event in events.values() for fact in self._engine.wake(event, waits, cause, now)]

    def _look(self, body: dict[str, Any], cause: Cause, now: int) -> list[RunFact]:
        """What satisfies a wait, or its end, if nothing does and it is over."""
        run_id, pause, after = body["run"], body["pause"], body["after"]
        if not self._tokens.is_valid(body.get("token"), *look_name(run_id, pause, after)):
            log.error("a message that run %r is to look behind %r is refused", run_id, after)
            return []
        record = self._store.load([run_id]).get(run_id)
        if record is None:
            return []
        if self._timers.is_over(record.plan, record.run, Timer(TimerKind.DEADLINE, pause), now):  # or was satisfied
            return [RunFact(run_id, DeadlinePassed(pause, after), cause)]
        found, _ = self._engine.look(record, pause, after)
        return [] if found is None else [RunFact(run_id, found, cause)]


def _is_silence(fact: Fact, plan: Plan) -> bool:
    """Whether no timer is late, but an attempt was silent for too long."""
    return isinstance(fact, AttemptLost | AttemptEnded) and fact.step not in plan.approval_steps


def _ctx_of(body: dict[str, Any]) -> dict[str, Any]:
    """The `ctx` of the input that a record of Lambda's destinations repeats."""
    payload = body["requestPayload"]
    ctx: dict[str, Any] = (payload["input"] if payload.get("stepwell") == "http" else payload)["ctx"]
    return ctx


def _run_of(body: dict[str, Any]) -> object:
    return _ctx_of(body)["run_id"] if "requestPayload" in body else body.get("run")


def _index(steps: tuple[Step, ...], step_id: str) -> int:
    return next(i for i, step in enumerate(steps) if step.id == step_id)
