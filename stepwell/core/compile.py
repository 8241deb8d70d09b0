"""Compiles a normalised definition into a plan, and computes the hash that identifies a version."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from stepwell.core.duration import parse_duration
from stepwell.core.flow.limits import limits_of_starts, limits_of_step, limits_of_steps
from stepwell.core.plan import TRIGGER, Edge, Pause, Plan, RateLimit, Retries, Runtime, Singleton, Step, Trigger


def version_hash(definition: Mapping[str, Any], code: Mapping[str, str]) -> str:
    """The hash that identifies a version. It covers the normalised definition and the hashes of the steps' code."""
    content = orjson.dumps({"definition": definition, "code": code}, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(content).hexdigest()


def compile_plan(definition: dict[str, Any], version: int) -> Plan:
    """Compiles a normalised definition into the plan of one version.

    The definition must be validated: without cycles, and every parent exists.
    """
    ids = list(definition["steps"])
    index = {step_id: i for i, step_id in enumerate(ids)}
    edges, pauses = _edges(definition, index)
    incoming: dict[int, list[int]] = defaultdict(list)
    outgoing: dict[int, list[int]] = defaultdict(list)
    for e, edge in enumerate(edges):
        incoming[edge.step].append(e)
        outgoing[edge.parent].append(e)
    ancestors, bits = _ancestors(len(ids), edges, incoming)
    cancels = _cancels(definition.get("cancel", ()))
    timeouts = definition.get("timeouts", {})
    steps = tuple(
        _step(
            definition["steps"][step_id],
            edges=tuple(incoming[i]),
            out=tuple(outgoing[i]),
            ancestors=ancestors[i],
            ancestor_bits=bits[i],
            needs_no_evaluation=all(edges[e].condition is None and edges[e].pause is None for e in outgoing[i]),
            limits=limits_of_step(definition, step_id),
        )
        for i, step_id in enumerate(ids)
    )
    approval_steps = tuple(i for i, step in enumerate(steps) if step.is_approval)
    return Plan(
        function_id=definition["id"],
        version=version,
        triggers=tuple(trigger_of(trigger) for trigger in definition["triggers"]),
        steps=steps,
        edges=tuple(edges),
        pauses=(*_with_upstream(pauses, edges, ancestors), *cancels),
        roots=tuple(outgoing[TRIGGER]),
        leaves=tuple(i for i in range(len(ids)) if not outgoing[i]),
        keys=tuple(f'"{step_id}":'.encode() for step_id in ids),  # ids contain no characters that JSON escapes
        cancels=tuple(range(len(pauses), len(pauses) + len(cancels))),
        idempotency=definition.get("idempotency"),
        rate_limit=_rate_limit(definition.get("rate_limit")),
        singleton=_singleton(definition.get("singleton")),
        start_limits=limits_of_starts(definition),
        step_limits=limits_of_steps(definition),
        priority=definition.get("priority"),
        approval_steps=approval_steps,
        approval_bits=sum(1 << i for i in approval_steps),
        start_timeout_ms=_duration(timeouts.get("start")),
        finish_timeout_ms=_duration(timeouts.get("finish")),
    )


def trigger_of(trigger: Mapping[str, Any]) -> Trigger:
    return Trigger(**{name: value for name, value in trigger.items() if name != "definition"})


def _edges(definition: dict[str, Any], index: dict[str, int]) -> tuple[list[Edge], list[Pause]]:
    edges: list[Edge] = []
    shared: dict[tuple[Any, ...], int] = {}
    members: list[list[int]] = []
    for step_id, step in definition["steps"].items():
        for after in step["after"] or [{"step": "$trigger", "on": "success"}]:
            parent = TRIGGER if after["step"] == "$trigger" else index[after["step"]]
            wait = after.get("async")
            delay, until = _delay(after.get("wait"))
            pause = None
            if wait:
                key = (parent, delay, wait["event"], wait.get("match"), parse_duration(wait["ttl"]), until)
            else:
                key = (parent, delay, None, None, 0, until)
            if wait or delay or until:
                pause = shared.setdefault(key, len(shared))
                if pause == len(members):
                    members.append([])
                members[pause].append(len(edges))
            edges.append(
                Edge(
                    step=index[step_id],
                    parent=parent,
                    on=after.get("on", "success"),
                    condition=after.get("if"),
                    pause=pause,
                    on_timeout=bool(wait and wait.get("onTimeout")),
                )
            )
    return edges, [
        Pause(parent, delay, event, match, ttl, edges=tuple(members[p]), upstream=(), until=until)
        for (parent, delay, event, match, ttl, until), p in shared.items()
    ]


def _rate_limit(rate_limit: Mapping[str, Any] | None) -> RateLimit | None:
    if rate_limit is None:
        return None
    return RateLimit(rate_limit["limit"], parse_duration(rate_limit["period"]), rate_limit.get("key"))


def _singleton(singleton: Mapping[str, Any] | None) -> Singleton | None:
    return None if singleton is None else Singleton(singleton["mode"] == "cancel", singleton.get("key"))


def _delay(wait: str | dict[str, str] | None) -> tuple[int, str | None]:
    """The constant delay of an edge in ms, and the expression for the end of a delay."""
    return (0, wait["until"]) if isinstance(wait, dict) else (_duration(wait), None)


def _cancels(rules: Sequence[dict[str, Any]]) -> list[Pause]:
    return [
        Pause(TRIGGER, 0, rule["event"], rule.get("if"), _duration(rule.get("timeout")), (), (), cancels=True)
        for rule in rules
    ]


def _duration(text: str | None) -> int:
    return parse_duration(text) if text else 0


def _ancestors(
    count: int, edges: list[Edge], incoming: dict[int, list[int]]
) -> tuple[list[tuple[int, ...]], list[int]]:
    """The ancestors of every step, in topological order (Kahn's algorithm) and as a bit set."""
    parents = [{edges[e].parent for e in incoming[i]} - {TRIGGER} for i in range(count)]
    children: dict[int, list[int]] = defaultdict(list)
    for child, parents_of_child in enumerate(parents):
        for parent in parents_of_child:
            children[parent].append(child)
    missing = [len(p) for p in parents]
    order = [i for i in range(count) if not missing[i]]
    sets: list[set[int]] = [set() for _ in range(count)]
    bits = [0] * count
    for i in order:
        for parent in parents[i]:
            sets[i] |= sets[parent] | {parent}
            bits[i] |= bits[parent] | 1 << parent
        for child in children[i]:
            missing[child] -= 1
            if not missing[child]:
                order.append(child)
    rank = {step: position for position, step in enumerate(order)}
    return [tuple(sorted(s, key=rank.__getitem__)) for s in sets], bits


def _with_upstream(pauses: list[Pause], edges: list[Edge], ancestors: list[tuple[int, ...]]) -> tuple[Pause, ...]:
    """The pauses with the waiting edges upstream of each.

    An edge is upstream of a pause if it leads to the pause's parent, or to an ancestor of that parent.
    """
    waiting = [(e, edges[e].step) for pause in pauses if pause.event is not None for e in pause.edges]
    result = []
    for pause in pauses:
        before = set() if pause.parent == TRIGGER else {pause.parent, *ancestors[pause.parent]}
        upstream = tuple(e for e, step in waiting if step in before)
        result.append(replace(pause, upstream=upstream))
    return tuple(result)


def _step(step: dict[str, Any], **graph: Any) -> Step:
    """The step of a plan. `graph`: the fields that depend on other steps, such as edges and ancestors."""
    retries, backoff = step["retries"], step["retries"]["backoff"]
    return Step(
        id=step["id"],
        name=step["name"],
        path=step["path"],
        runtime=_runtime(step["runtime"]),
        join=step["join"],
        retries=Retries(
            attempts=retries["attempts"],
            initial_ms=parse_duration(backoff["initial"]),
            factor=backoff["factor"],
            max_ms=parse_duration(backoff["max"]),
            jitter=backoff["jitter"],
        ),
        timeout_ms=parse_duration(step["timeout"]),
        env=tuple(sorted(step["env"].items())),
        secrets=tuple(step["secrets"]),
        **graph,
    )


def _runtime(runtime: dict[str, Any]) -> Runtime:
    # An approval may have the timeout in `runtime`; the definition has copied it to the step.
    fields = {name: value for name, value in runtime.items() if value is not None and name != "timeout"}
    for name in ("command", "entrypoint", "approvers", "layers"):
        if name in fields:
            fields[name] = tuple(fields[name])
    fields["headers"] = tuple(sorted(fields.get("headers", {}).items()))
    return Runtime(**fields)
