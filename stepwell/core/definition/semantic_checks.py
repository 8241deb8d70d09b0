"""Checks that involve several fields of a definition: fields that exclude each other, the graph, the expressions.

They work on the data as users wrote it, and ignore values of the wrong type. So their problems are reported together
with those of single fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stepwell.core.cel.expressions import Scope, compile_value
from stepwell.core.definition.expression_problems import compile_problems, condition_problems, step_expressions
from stepwell.core.definition.flow_control_checks import flow_control_problems, flow_control_problems_of_step
from stepwell.core.definition.graph import Ancestry, Raw, Steps, cycles, entries, objects
from stepwell.core.definition.problems import Pointer, Problem, nearest
from stepwell.core.definition.schema_rules import OF_OWN_LAMBDA
from stepwell.core.duration import parse_duration
from stepwell.core.events.cron import check_cron
from stepwell.core.routing.waits import found_by_name

_TRIGGER = "$trigger"
_MOST_STEPS = 1000
_RESERVATION_MS = 60_000, 86_400_000  # how long Faktory workers may reserve a job


def contradictions(definition: Raw) -> list[Problem]:
    """All problems across the fields of a definition, in reading order."""
    steps = objects(definition.get("steps"))
    if len(steps) > _MOST_STEPS:
        return []  # the model reports the number of steps, and more checks would take too long
    ancestry = Ancestry(steps)
    problems = [problem for i, trigger in entries(definition.get("triggers")) for problem in _trigger(i, trigger)]
    problems += [problem for i, rule in entries(definition.get("cancel")) for problem in _cancel(i, rule)]
    if isinstance(definition.get("idempotency"), str) and definition["idempotency"]:
        problems += compile_problems(("idempotency",), definition["idempotency"], Scope.TRIGGER, compile_value)
    problems += flow_control_problems(definition)
    problems += _timeouts(definition.get("timeouts"))
    for step_id, step in steps.items():
        problems += _step(step_id, step)
        problems += _after(step_id, step, steps)
        problems += step_expressions(step_id, step, ancestry)
        problems += flow_control_problems_of_step(step_id, step, ancestry)
    return problems + list(cycles(steps))


def find_warnings(definition: Raw) -> list[Problem]:
    """The parts of a normalised definition that are allowed, but probably a mistake."""
    found: list[Problem] = []
    for step_id, step in definition["steps"].items():
        for i, edge in enumerate(step["after"]):
            match = edge.get("async", {}).get("match")
            found += _unindexed(("steps", step_id, "after", i, "async", "match"), match)
            found += _runs_after_decline(("steps", step_id, "after", i), step_id, edge, definition["steps"])
        found += _never_runs(step_id, step)
        found += _starts_itself(step_id, step, definition["triggers"])
    for i, rule in enumerate(definition.get("cancel", ())):
        found += _unindexed(("cancel", i, "if"), rule.get("if"))
    return found


def _unindexed(at: Pointer, source: str | None) -> Iterator[Problem]:
    """Warns of a condition on an incoming event that cannot be indexed."""
    why = found_by_name(source) if source else None
    if why is not None:
        yield Problem(
            at,
            f"{at[-1]} has no equality between the incoming event and a value of the run{why}, so each event of this "
            "name is compared with all waiting runs, which is slow; add an equality with &&, as in "
            "async.data.order_id == event.data.order_id",
        )


def _runs_after_decline(at: Pointer, step_id: str, edge: Raw, steps: Steps) -> Iterator[Problem]:
    """Warns of an edge after an approval that is taken even if the approval is declined, which is not a failure."""
    parent = steps.get(edge["step"])
    if parent and _is_approval(parent) and edge["on"] == "success" and edge.get("if") is None:
        yield Problem(at, f"`{step_id}` runs even if `{edge['step']}` is declined; add `if: response.approved`")


def _never_runs(step_id: str, step: Raw) -> Iterator[Problem]:
    """Warns of `join: all` with edges that exclude each other."""
    if step["join"] != "all":
        return
    edges = {(edge["step"], edge.get("on")) for edge in step["after"]}
    for parent in dict(edges):
        if {(parent, "success"), (parent, "failure")} <= edges:
            message = (
                f"join: all needs both the success and the failure of `{parent}`, so `{step_id}` never runs; remove one"
                " of these edges, or use `join: merge`"
            )
            yield Problem(("steps", step_id, "join"), message)


def _starts_itself(step_id: str, step: Raw, triggers: Sequence[Raw]) -> Iterator[Problem]:
    """Warns of a step that sends an event which starts the function again."""
    runtime = step["runtime"]
    if runtime["type"] != "emit":
        return
    for trigger in triggers:
        pattern, name = trigger.get("event", ""), runtime["event"]
        is_match = name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
        if is_match and trigger.get("expression") is None:
            message = (
                f"`{step_id}` sends {name}, which starts this function again, and again; send another event, or add an"
                " `expression` to the trigger that ends the chain"
            )
            yield Problem(("steps", step_id, "runtime", "event"), message)


# --- fields ----------------------------------------------------------------------------------------------------------


def _trigger(i: int, trigger: Raw) -> Iterator[Problem]:
    at: Pointer = ("triggers", i)
    event, cron, timezone = (trigger.get(name) for name in ("event", "cron", "timezone"))
    if event is None and cron is None:
        yield Problem(at, "a trigger needs an `event` or a `cron`; add one of them")
    elif event is not None and cron is not None:
        yield Problem((*at, "cron"), "a trigger has either `event` or `cron`, not both; write two triggers")
    elif cron is None and timezone is not None:
        yield Problem((*at, "timezone"), "`timezone` is only for `cron`, and this trigger has an `event`; remove it")
    elif event is None and trigger.get("expression") is not None:
        yield Problem((*at, "expression"), "`expression` is only for `event`, and this trigger has a `cron`; remove it")
    if trigger.get("definition") is not None:
        if event is None:
            yield Problem(
                (*at, "definition"), "`definition` is the schema of an `event`, and this trigger has none; remove it"
            )
        elif isinstance(event, str) and event.endswith("*"):
            yield Problem(
                (*at, "definition"),
                "`definition` is the schema of a single event, and this trigger has a wildcard; write the exact name of"
                " the event, or remove `definition`",
            )
    if isinstance(cron, str):
        yield from _cron(at, cron, timezone)
    if isinstance(trigger.get("expression"), str):
        yield from condition_problems((*at, "expression"), trigger["expression"], Scope.TRIGGER)


def _cron(at: Pointer, cron: str, timezone: object) -> Iterator[Problem]:
    try:
        check_cron(cron, "UTC")
    except ValueError as wrong:
        yield Problem((*at, "cron"), f"cron: {wrong}")
        return
    if isinstance(timezone, str):
        try:
            check_cron(cron, timezone)
        except ValueError as wrong:
            yield Problem((*at, "timezone"), f"timezone: {wrong}")


def _cancel(i: int, rule: Raw) -> Iterator[Problem]:
    if isinstance(rule.get("if"), str) and rule["if"]:
        yield from condition_problems(("cancel", i, "if"), rule["if"], Scope.CANCEL)


def _timeouts(timeouts: object) -> Iterator[Problem]:
    if isinstance(timeouts, dict) and timeouts.get("start") is None and timeouts.get("finish") is None:
        yield Problem(("timeouts",), "`timeouts` is empty; write `start` or `finish`, as in finish: 2h, or remove it")


def _step(step_id: str, step: Raw) -> Iterator[Problem]:
    at: Pointer = ("steps", step_id)
    given = step.get("id", step_id)
    if isinstance(given, str) and given != step_id:
        message = f"the id {given[:100]!r} differs from the key of the step; write {step_id[:100]!r}, or remove `id`"
        yield Problem((*at, "id"), message)
    runtime = step.get("runtime")
    runtime = runtime if isinstance(runtime, dict) else {}
    kind = runtime.get("type", "lambda")
    ways = [name for name in ("command", "handler", "arn") if runtime.get(name) is not None]
    if len(ways) > 1:
        names = " and ".join(f"`{name}`" for name in ways)
        yield Problem((*at, "runtime", ways[1]), f"{names} exclude each other; keep one of them")
    if kind == "lambda" and runtime.get("arn") is not None:
        for name in OF_OWN_LAMBDA:
            if runtime.get(name) is not None:
                message = f"`{name}` cannot be combined with `arn`; set it on the existing Lambda, and remove it here"
                yield Problem((*at, "runtime", name), message)
    if kind == "approval":
        yield from _approval(at, step)
    elif kind == "emit":
        yield from _emit(at, step)
    elif kind == "faktory":
        yield from _faktory(at, step)
    needs_code = kind == "wasm" or (kind == "lambda" and runtime.get("arn") is None)
    if step.get("path") in (None, "") and (needs_code or (kind == "docker" and runtime.get("image") is None)):
        cure = "add it, as in file://./steps/send-sms" + (", or give an `image`" if kind == "docker" else "")
        yield Problem((*at, "path"), f"`path`, the place of the code of `{step_id}`, is missing; {cure}")


def _is_approval(step: Raw) -> bool:
    runtime = step.get("runtime")
    return isinstance(runtime, dict) and runtime.get("type") == "approval"


def _emit(at: Pointer, step: Raw) -> Iterator[Problem]:
    timed = step.get("timeout") not in (None, "15m")  # 15m: the default, in a normalised definition
    for name in (
        "path",
        "env",
        "secrets",
        *(["retries"] if _tries_again(step) else []),
        *(["timeout"] if timed else []),
    ):
        if step.get(name):
            yield Problem((*at, name), f"`{name}` has no effect on a step that only sends an event; remove it")


def _tries_again(step: Raw) -> bool:
    retries = step.get("retries")
    return isinstance(retries, dict) and retries.get("attempts") != 0


def _approval(at: Pointer, step: Raw) -> Iterator[Problem]:
    for name in ("path", "env", "secrets", *(["retries"] if _tries_again(step) else [])):
        if step.get(name):
            yield Problem((*at, name), f"`{name}` has no effect on an approval, which executes nothing; remove it")
    given, inside = step.get("timeout"), step["runtime"].get("timeout")
    if isinstance(inside, str) and given not in (None, inside):
        message = "`timeout` of the runtime differs from `timeout` of the step; remove one of them"
        yield Problem((*at, "runtime", "timeout"), message)


def _faktory(at: Pointer, step: Raw) -> Iterator[Problem]:
    for name in ("path", "env", "secrets"):
        if step.get(name):
            message = f"`{name}` has no effect on a step of Faktory workers, which have code and settings of their own"
            yield Problem((*at, name), f"{message}; remove it")
    timeout = step.get("timeout")
    if isinstance(timeout, str) and not _RESERVATION_MS[0] <= _ms(timeout) <= _RESERVATION_MS[1]:
        message = "Faktory workers reserve a job for 60 s to a day; write a `timeout` from 1m to 24h"
        yield Problem((*at, "timeout"), message)


def _ms(duration: str) -> int:
    try:
        return parse_duration(duration)
    except ValueError:
        return _RESERVATION_MS[0]  # reported by the model


def _after(step_id: str, step: Raw, steps: Steps) -> Iterator[Problem]:
    for i, edge in entries(step.get("after")):
        at: Pointer = ("steps", step_id, "after", i)
        parent = edge.get("step")
        if parent == _TRIGGER and edge.get("on") is not None:
            message = f"`on` has no effect after {_TRIGGER}, which cannot succeed or fail; remove it"
            yield Problem((*at, "on"), message)
        elif parent == step_id:
            yield Problem(
                (*at, "step"), f"`{step_id}` cannot come after itself; name another step, or remove this edge"
            )
        elif isinstance(parent, str) and parent != _TRIGGER and parent not in steps:
            known = [other for other in steps if other != step_id]
            cure = nearest(parent, known) if known else "there are no other steps"
            message = f"`{step_id}` comes after `{parent[:100]}`, which does not exist; {cure}"
            yield Problem((*at, "step"), message)
