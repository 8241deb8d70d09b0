"""What a definition compiles to: frozen, light, by index instead of by name.

A plan is compiled from the *normalised* definition (`Definition.normalised()`, plain JSON data with every default
filled in), which is what stores keep; so loading a plan never needs pydantic.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from stepwell.core.duration import parse_duration

if TYPE_CHECKING:
    from stepwell.core.trigger_index import TriggerIndex

TRIGGER = -1  # the index of the pseudo parent `$trigger`


@dataclass(frozen=True, slots=True)
class Trigger:
    """Either `event` (exact, or a prefix that ends in `*`) or `cron`. `index`: by what the expression is found, if that
    is known already."""

    event: str | None = None
    expression: str | None = None
    cron: str | None = None
    timezone: str = "UTC"
    index: TriggerIndex | None = None


@dataclass(frozen=True, slots=True)
class Runtime:
    """How a step is executed; which fields count depends on `type`, as in section "runtime" of the contract."""

    type: str
    command: tuple[str, ...] | None = None
    handler: str | None = None
    memory: int | None = None
    architecture: str | None = None
    ephemeral_storage: int | None = None  # MB
    layers: tuple[str, ...] = ()
    vpc: bool = False
    tracing: bool | None = None  # None: as the environment
    arn: str | None = None
    image: str | None = None
    entrypoint: tuple[str, ...] | None = None
    cpu: float | None = None
    url: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    message: str = ""
    approvers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Retries:
    attempts: int  # retries after the first try
    initial_ms: int
    factor: float
    max_ms: int
    jitter: float  # 0.15 = +-15%


@dataclass(frozen=True, slots=True)
class Edge:
    """One entry of a step's `after` list. `pause` is what it goes through once `on` and `if` hold, if anything."""

    step: int
    parent: int  # a step, or TRIGGER
    on: str  # success, failure, always
    condition: str | None
    pause: int | None
    on_timeout: bool


@dataclass(frozen=True, slots=True)
class Pause:
    """A delay, a wait for an event, or both; shared by all edges with equal parent, delay, event, match and ttl.

    One that `cancels` has no edges: it is open as long as the run is, or its ttl (0: none), and its event ends the run.
    """

    parent: int
    delay_ms: int
    event: str | None
    match: str | None
    ttl_ms: int
    edges: tuple[int, ...]
    upstream: tuple[int, ...]  # edges before the parent that wait for events, which may not be used again here
    cancels: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    id: str
    name: str
    path: str
    runtime: Runtime
    join: str  # merge, all, first
    retries: Retries
    timeout_ms: int
    env: tuple[tuple[str, str], ...]
    secrets: tuple[str, ...]
    edges: tuple[int, ...]  # incoming, in the order of `after`
    out: tuple[int, ...]  # outgoing
    ancestors: tuple[int, ...]  # steps, in topological order
    ancestor_bits: int  # the same as a set: bit i stands for step i
    asks_nothing: bool  # when it ends: no edge out of it has an expression, or a wait

    @property
    def is_approval(self) -> bool:
        """Whether people decide it, so that nothing is executed."""
        return self.runtime.type == "approval"

    @property
    def calls(self) -> bool:
        """Whether it is a call to a web address, which waits and computes nothing here."""
        return self.runtime.type == "http"


@dataclass(frozen=True, slots=True)
class Plan:
    function_id: str
    version: int
    triggers: tuple[Trigger, ...]
    steps: tuple[Step, ...]
    edges: tuple[Edge, ...]
    pauses: tuple[Pause, ...]
    roots: tuple[int, ...]  # edges whose parent is TRIGGER
    leaves: tuple[int, ...]  # steps that no step comes after
    keys: tuple[bytes, ...]  # how each step's member of a JSON object begins: `"id":`
    cancels: tuple[int, ...] = ()  # pauses whose event cancels the run
    idempotency: str | None = None
    approval_steps: tuple[int, ...] = ()  # steps that people decide
    approval_bits: int = 0  # the same as a set: bit i stands for step i


class Starts(Protocol):
    """What tells when a version of a function starts: a plan, or what stands for one that is not compiled yet."""

    @property
    def function_id(self) -> str: ...

    @property
    def triggers(self) -> tuple[Trigger, ...]: ...


def version_hash(definition: Mapping[str, Any], code: Mapping[str, str]) -> str:
    """What a version is known by: its normalised definition, and the hashes of its steps' code."""
    content = orjson.dumps({"definition": definition, "code": code}, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(content).hexdigest()


def compile_plan(definition: dict[str, Any], version: int) -> Plan:
    """Compile a normalised definition (validated: no cycle, every parent known) into the plan of one version."""
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
    steps = tuple(
        _step(
            definition["steps"][step_id],
            edges=tuple(incoming[i]),
            out=tuple(outgoing[i]),
            ancestors=ancestors[i],
            ancestor_bits=bits[i],
            asks_nothing=all(edges[e].condition is None and edges[e].pause is None for e in outgoing[i]),
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
        keys=tuple(f'"{step_id}":'.encode() for step_id in ids),  # no id needs an escape
        cancels=tuple(range(len(pauses), len(pauses) + len(cancels))),
        idempotency=definition.get("idempotency"),
        approval_steps=approval_steps,
        approval_bits=sum(1 << i for i in approval_steps),
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
            delay = _duration(after.get("wait"))
            pause = None
            if wait:
                key = (parent, delay, wait["event"], wait.get("match"), parse_duration(wait["ttl"]))
            else:
                key = (parent, delay, None, None, 0)
            if wait or delay:
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
        Pause(parent, delay, event, match, ttl, edges=tuple(members[p]), upstream=())
        for (parent, delay, event, match, ttl), p in shared.items()
    ]


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
    """Ancestors of every step: in topological order (Kahn's algorithm), and as bits."""
    parents = [{edges[e].parent for e in incoming[i]} - {TRIGGER} for i in range(count)]
    children: dict[int, list[int]] = defaultdict(list)
    for child, its_parents in enumerate(parents):
        for parent in its_parents:
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
    """An edge is upstream of a pause if it leads into the pause's parent or into an ancestor of that."""
    waiting = [(e, edges[e].step) for pause in pauses if pause.event is not None for e in pause.edges]
    result = []
    for pause in pauses:
        before = set() if pause.parent == TRIGGER else {pause.parent, *ancestors[pause.parent]}
        upstream = tuple(e for e, step in waiting if step in before)
        result.append(
            Pause(pause.parent, pause.delay_ms, pause.event, pause.match, pause.ttl_ms, pause.edges, upstream)
        )
    return tuple(result)


def _step(step: dict[str, Any], **graph: Any) -> Step:
    """`graph`: the fields that tell where the step stands among the others."""
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
    fields = {name: value for name, value in runtime.items() if value is not None and name != "timeout"}  # the step's
    for name in ("command", "entrypoint", "approvers", "layers"):
        if name in fields:
            fields[name] = tuple(fields[name])
    fields["headers"] = tuple(sorted(fields.get("headers", {}).items()))
    return Runtime(**fields)
