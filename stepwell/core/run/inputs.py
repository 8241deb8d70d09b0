"""Builds the input document of a step, and the variables of expressions on edges."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from typing import Any

import orjson

from stepwell.core.cel.answer import Answer
from stepwell.core.cel.expressions import Bindings, Expression, Scope, compile_expression
from stepwell.core.plain_data import immutable
from stepwell.core.plan import TRIGGER, Plan
from stepwell.core.run.messages import Error
from stepwell.core.run.run import EdgeStatus, PauseStatus, Run

MAX_INPUT_BYTES = 640 * 1024


def error_json(error: Error) -> bytes:
    """The JSON form of an error, for steps and for the API."""
    output = None if error.output is None else orjson.Fragment(error.output)
    message = error.message.encode(errors="replace").decode()  # a file name in it may not be valid Unicode
    return orjson.dumps({"kind": error.kind, "message": message, "status": error.status, "output": output})


def erased_error(error: bytes) -> bytes:
    """The error without message and output, because they may quote data of an erased user."""
    value = orjson.loads(error)
    return orjson.dumps({"kind": value["kind"], "message": "erased", "status": value["status"], "output": None})


def error_from(text: bytes) -> Error:
    """The inverse of `error_json`."""
    value = orjson.loads(text)
    output = None if value["output"] is None else orjson.dumps(value["output"])
    return Error(value["kind"], value["message"], value["status"], output)


def async_event_ids(plan: Plan, run: Run, step: int) -> list[str]:
    """The ids of the events that satisfied the step's edges, in the order in which they did."""
    matched = {
        plan.edges[e].pause
        for e in plan.steps[step].edges
        if run.edges[e] is EdgeStatus.SATISFIED and not plan.edges[e].on_timeout
    }
    pauses = [run.pauses[p] for p in matched if p is not None and run.pauses[p].status is PauseStatus.MATCHED]
    return [pause.event_id for pause in sorted(pauses, key=lambda pause: pause.order) if pause.event_id is not None]


class JoinedOutputs:
    """Joins the outputs of a step's ancestors to the members of a JSON object, with a cache.

    If the ancestors of the previous step are a prefix of this step's ancestors, only the rest is joined. In a chain of
    steps, the rest is a single output.
    """

    __slots__ = ("_members", "_steps")

    def __init__(self) -> None:
        self._steps: tuple[int, ...] = ()
        self._members = b""  # the joined outputs of `_steps`

    def of(self, plan: Plan, steps: tuple[int, ...], texts: Mapping[int, bytes]) -> bytes:
        """The members for the steps that have a text. All steps have ended, so the texts do not change."""
        known = len(self._steps)
        is_longer = steps[:known] == self._steps
        begin, more = (self._members, steps[known:]) if is_longer else (b"", steps)
        members = _members(plan, more, texts)
        members = [begin, b",", *members] if begin and members else [begin, *members]
        self._steps, self._members = steps, b"".join(members)
        return self._members


def _members(plan: Plan, steps: Iterable[int], texts: Mapping[int, bytes]) -> list[bytes]:
    """The pieces of a JSON object's members, with one member for each step that has a text."""
    if not texts:
        return []
    pieces: list[bytes] = []
    for s in steps:
        if s in texts:
            pieces += (b",", plan.keys[s], texts[s])
    return pieces[1:]


@immutable
class InputTexts:
    """The JSON texts that a step's input is built from. `outputs` and `errors` are by step. `joined`: the cache that
    the inputs of all steps of a run share."""

    event: bytes
    async_events: Sequence[bytes] = ()
    outputs: Mapping[int, bytes] = field(default_factory=dict)
    errors: Mapping[int, bytes] = field(default_factory=dict)
    joined: JoinedOutputs | None = None


def step_input(plan: Plan, run: Run, step: int, texts: InputTexts, *, env: str, replay: str | None = None) -> bytes:
    """The input of the step's newest attempt, as a JSON document. Only `ctx.attempt` differs between attempts.

    Ancestors that had not ended when the input was frozen are left out. `replay`: the id of the replay that created the
    run, if there was one. The document is joined from texts, so that each text is copied only once.
    """
    state, value = run.steps[step], plan.steps[step]
    ended = tuple(a for a in value.ancestors if a not in state.unseen) if state.unseen else value.ancestors
    ctx: dict[str, Any] = {
        "function_id": plan.function_id,
        "function_version": plan.version,
        "run_id": run.id,
        "step_id": value.id,
        "attempt": state.attempt,
        "idempotency_key": f"{run.id}/{value.id}",
        "env": env,
        "async_events": [orjson.Fragment(event) for event in texts.async_events] if texts.async_events else [],
    }
    if replay is not None:
        ctx["replay"] = replay
    first_event = texts.async_events[0] if texts.async_events else b"null"
    joined, outputs = texts.joined, texts.outputs
    steps = _members(plan, ended, outputs) if joined is None else [joined.of(plan, ended, outputs)]
    errors = _members(plan, ended, texts.errors)
    pieces = [b'{"event":', texts.event, b',"steps":{', *steps, b'},"errors":{', *errors]
    pieces += [b'},"async":', first_event, b',"ctx":', orjson.dumps(ctx), b"}"]
    return b"".join(pieces)


def edge_variables(
    plan: Plan,
    parent: int,
    event: dict[str, Any],
    outputs: Mapping[int, bytes],
    errors: Mapping[int, bytes],
    read_by: Iterable[Expression],
) -> dict[str, Any]:
    """The variables for expressions (`read_by`) on edges out of `parent`, a step or TRIGGER.

    `steps` and `errors` contain only the ended steps that these expressions read.
    """
    expressions = list(read_by)
    read = [expression.steps_read for expression in expressions]
    reads_response = any("response" in expression.variables for expression in expressions)
    known = () if parent == TRIGGER else (*plan.steps[parent].ancestors, parent)
    if None not in read:
        ids = frozenset().union(*(items for items in read if items is not None))
        known = tuple(s for s in known if plan.steps[s].id in ids) if ids else ()
    return {
        "event": event,
        "steps": {plan.steps[s].id: orjson.loads(outputs[s]) for s in known if s in outputs},
        "errors": {plan.steps[s].id: orjson.loads(errors[s]) for s in known if s in errors},
        "response": orjson.loads(outputs[parent]) if reads_response and parent in outputs else None,
    }


def step_values(
    plan: Plan,
    run: Run,
    step: int,
    outputs: Mapping[int, bytes],
    errors: Mapping[int, bytes],
    read_by: Iterable[Expression],
) -> dict[str, dict[str, Any]]:
    """The variables `steps` and `errors` for expressions (`read_by`) that are evaluated before a step's attempt.

    They contain the same ended steps as the step's input, without those that the expressions do not read.
    """
    read = [expression.steps_read for expression in read_by]
    known = [a for a in plan.steps[step].ancestors if a not in run.steps[step].unseen]
    if None not in read:
        ids = frozenset().union(*(items for items in read if items is not None))
        known = [a for a in known if plan.steps[a].id in ids]
    return {
        "steps": {plan.steps[a].id: orjson.loads(outputs[a]) for a in known if a in outputs},
        "errors": {plan.steps[a].id: orjson.loads(errors[a]) for a in known if a in errors},
    }


def match_answer(
    plan: Plan,
    pause: int,
    event: dict[str, Any],
    outputs: Mapping[int, bytes],
    errors: Mapping[int, bytes],
    incoming: dict[str, Any],
) -> Answer:
    """Whether an incoming event satisfies the `match` of a pause, or the reason why `match` has no value."""
    return matcher(plan, pause, event, outputs, errors)(incoming)


def matcher(
    plan: Plan, pause: int, event: dict[str, Any], outputs: Mapping[int, bytes], errors: Mapping[int, bytes]
) -> Callable[[dict[str, Any]], Answer]:
    """A function that returns `match_answer` for an incoming event. The data of the run is decoded once."""
    parent, source = plan.pauses[pause].parent, plan.pauses[pause].match
    if source is None:
        return lambda incoming: Answer(True)
    match = compile_expression(source, Scope.MATCH)
    known = edge_variables(plan, parent, event, outputs, errors, [match])
    return lambda incoming: match.evaluate(Bindings(**known, async_event=incoming))
