"""What a step sees: its input document, and the variables of the expressions on its edges (contract, section 3)."""

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
    """An error as steps and the API see it."""
    output = None if error.output is None else orjson.Fragment(error.output)
    message = error.message.encode(errors="replace").decode()  # names of files may hold what is no Unicode
    return orjson.dumps({"kind": error.kind, "message": message, "status": error.status, "output": output})


def erased_error(error: bytes) -> bytes:
    """The error without its message and output, which may quote the data of an erased user."""
    value = orjson.loads(error)
    return orjson.dumps({"kind": value["kind"], "message": "erased", "status": value["status"], "output": None})


def error_from(text: bytes) -> Error:
    """The inverse of `error_json`."""
    value = orjson.loads(text)
    output = None if value["output"] is None else orjson.dumps(value["output"])
    return Error(value["kind"], value["message"], value["status"], output)


def async_event_ids(plan: Plan, run: Run, step: int) -> list[str]:
    """Ids of the events that satisfied this step's edges, the first one first."""
    matched = {
        plan.edges[e].pause
        for e in plan.steps[step].edges
        if run.edges[e] is EdgeStatus.SATISFIED and not plan.edges[e].on_timeout
    }
    pauses = [run.pauses[p] for p in matched if p is not None and run.pauses[p].status is PauseStatus.MATCHED]
    return [pause.event_id for pause in sorted(pauses, key=lambda pause: pause.order) if pause.event_id is not None]


class JoinedOutputs:
    """The outputs of a step's ancestors as the members of a JSON object. The prefix that the previous step of the run
    has too is not joined again; in a chain, that is all but one."""

    __slots__ = ("_members", "_steps")

    def __init__(self) -> None:
        self._steps: tuple[int, ...] = ()
        self._members = b""  # of these steps

    def of(self, plan: Plan, steps: tuple[int, ...], texts: Mapping[int, bytes]) -> bytes:
        """The members of those of these steps that have a text. The steps have ended, so their texts do not change."""
        known = len(self._steps)
        is_longer = steps[:known] == self._steps
        begin, more = (self._members, steps[known:]) if is_longer else (b"", steps)
        members = _members(plan, more, texts)
        members = [begin, b",", *members] if begin and members else [begin, *members]
        self._steps, self._members = steps, b"".join(members)
        return self._members


def _members(plan: Plan, steps: Iterable[int], texts: Mapping[int, bytes]) -> list[bytes]:
    """The pieces of the members of a JSON object: one member for each of these steps that has a text."""
    if not texts:
        return []
    pieces: list[bytes] = []
    for s in steps:
        if s in texts:
            pieces += (b",", plan.keys[s], texts[s])
    return pieces[1:]


@immutable
class InputTexts:
    """The JSON texts that the input of a step is put together from. `outputs` and `errors` are by step. `joined` is
    shared by the inputs of all steps of one run."""

    event: bytes
    async_events: Sequence[bytes] = ()
    outputs: Mapping[int, bytes] = field(default_factory=dict)
    errors: Mapping[int, bytes] = field(default_factory=dict)
    joined: JoinedOutputs | None = None


def step_input(plan: Plan, run: Run, step: int, texts: InputTexts, *, env: str, replay: str | None = None) -> bytes:
    """The input of the step's newest attempt, one JSON document. Only `ctx.attempt` differs between attempts.

    Ancestors that had not ended when the input was frozen are left out. `replay` is the id of the replay that made the
    run, if one did. The document is put together by hand, so that each text is copied once, however long it is.
    """
    state, value = run.steps[step], plan.steps[step]
    seen = tuple(a for a in value.ancestors if a not in state.unseen) if state.unseen else value.ancestors
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
    steps = _members(plan, seen, outputs) if joined is None else [joined.of(plan, seen, outputs)]
    errors = _members(plan, seen, texts.errors)
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
    """The variables of expressions (`read_by`) on edges out of `parent`, a step or TRIGGER. `steps` and `errors` hold
    what these expressions read and what has ended."""
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


def match_answer(
    plan: Plan,
    pause: int,
    event: dict[str, Any],
    outputs: Mapping[int, bytes],
    errors: Mapping[int, bytes],
    incoming: dict[str, Any],
) -> Answer:
    """Whether an incoming event satisfies a wait's `match`, and why it has no value if it has none."""
    return matcher(plan, pause, event, outputs, errors)(incoming)


def matcher(
    plan: Plan, pause: int, event: dict[str, Any], outputs: Mapping[int, bytes], errors: Mapping[int, bytes]
) -> Callable[[dict[str, Any]], Answer]:
    """`match_answer` as a function of the incoming event. The data of the run is decoded once."""
    paus = plan.pauses[pause]
    if paus.match is None:
        return lambda incoming: Answer(True)
    match = compile_expression(paus.match, Scope.MATCH)
    known = edge_variables(plan, paus.parent, event, outputs, errors, [match])
    return lambda incoming: match.evaluate(Bindings(**known, async_event=incoming))
