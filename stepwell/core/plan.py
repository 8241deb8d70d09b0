"""The plan that a definition is compiled to: immutable, small, with indexes in place of names.

A plan is compiled from the *normalised* definition (`Definition.normalised()`, plain JSON data with all defaults). This
is the form that stores contain, so loading a plan does not need pydantic.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from stepwell.core.trigger_index import TriggerIndex

TRIGGER = -1  # the index of the pseudo parent `$trigger`


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger has either `event` (a name, or a prefix that ends in `*`) or `cron`. `index`: the index of the
    expression, if it is computed already."""

    event: str | None = None
    expression: str | None = None
    cron: str | None = None
    timezone: str = "UTC"
    index: TriggerIndex | None = None


@dataclass(frozen=True, slots=True)
class Runtime:
    """How a step is executed. `type` decides which other fields are used, as `definition/runtimes.py` describes."""

    type: str
    command: tuple[str, ...] | None = None
    handler: str | None = None
    memory: int | None = None
    architecture: str | None = None
    ephemeral_storage: int | None = None  # MB
    layers: tuple[str, ...] = ()
    vpc: bool = False
    tracing: bool | None = None  # None: the environment's setting
    arn: str | None = None
    image: str | None = None
    entrypoint: tuple[str, ...] | None = None
    cpu: float | None = None
    url: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    message: str = ""
    approvers: tuple[str, ...] = ()
    task: str | None = None
    queue: str = ""
    broker: str | None = None
    backend: str | None = None
    args: str | None = None
    kwargs: str | None = None
    module: str | None = None
    fuel: int | None = None
    jobtype: str | None = None
    event: str = ""
    data: str | None = None
    user: str | None = None
    ts: str | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of flow control. Those with an equal `id` are one limit. `period_ms` is 0 for concurrency; then `limit`
    is the number at a time, else the number of starts in each period. `limit` is None if only other definitions set it.

    `key` is an expression; each value of it has a limit of its own.
    """

    id: str
    limit: int | None
    key: str | None = None
    period_ms: int = 0
    burst: int = 0


@dataclass(frozen=True, slots=True)
class Retries:
    attempts: int  # retries after the first try
    initial_ms: int
    factor: float
    max_ms: int
    jitter: float  # 0.15 = +-15%


@dataclass(frozen=True, slots=True)
class Edge:
    """An entry of a step's `after` list. `pause`: the delay or wait that follows once `on` and `if` hold; or None."""

    step: int
    parent: int  # a step, or TRIGGER
    on: str  # success, failure, always
    condition: str | None
    pause: int | None
    on_timeout: bool


@dataclass(frozen=True, slots=True)
class Pause:
    """A delay, a wait for an event, or both. Edges with equal parent, delay, event, match and ttl share one.

    `until` is the expression for the end of the delay, in place of `delay_ms`. If `cancels` is set, the event cancels
    the run. Such a pause has no edges. It stays open until the run ends, or for the ttl if that is not 0.
    """

    parent: int
    delay_ms: int
    event: str | None
    match: str | None
    ttl_ms: int
    edges: tuple[int, ...]
    upstream: tuple[int, ...]  # edges before the parent that wait for events; their events must not be used again
    cancels: bool = False
    until: str | None = None


_REMOTE = frozenset({"celery", "faktory"})


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the plan.

    `is_approval`: people decide, and nothing is executed. `calls`: it calls a web address, so it needs no processor
    here. `is_remote`: workers of another system execute it, so an attempt outlives the server. `is_fetched`: it is
    remote, and an attempt stays queued until a worker asks for it. `is_emit`: the engine sends an event when the
    attempt is claimed. `has_timer`: a timer ends an attempt that others do not end in time. `needs_slot`: this platform
    executes it. All are derived from the runtime, and stored because every transition reads them. `is_limited`: an
    attempt waits until `limits` allow it.
    """

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
    needs_no_evaluation: bool  # no outgoing edge has an expression or a pause, so nothing is evaluated when it ends
    limits: tuple[Limit, ...] = ()  # those of the function and the step that each attempt of this step obeys
    is_limited: bool = field(init=False)
    is_approval: bool = field(init=False)
    calls: bool = field(init=False)
    is_remote: bool = field(init=False)
    is_fetched: bool = field(init=False)
    is_emit: bool = field(init=False)
    has_timer: bool = field(init=False)
    needs_slot: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_limited", bool(self.limits))
        object.__setattr__(self, "is_approval", self.runtime.type == "approval")
        object.__setattr__(self, "calls", self.runtime.type == "http")
        object.__setattr__(self, "is_remote", self.runtime.type in _REMOTE)
        object.__setattr__(self, "is_fetched", self.runtime.type == "faktory")
        object.__setattr__(self, "is_emit", self.runtime.type == "emit")
        object.__setattr__(self, "has_timer", self.is_approval or self.is_remote)
        object.__setattr__(self, "needs_slot", not (self.has_timer or self.is_emit))


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `limit` starts in any `period_ms`, for each value of `key` (an expression) if there is one."""

    limit: int
    period_ms: int
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Singleton:
    """One open run, for each value of `key` (an expression) if there is one. `cancels`: a later event cancels the open
    run; otherwise it starts none."""

    cancels: bool
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    function_id: str
    version: int
    triggers: tuple[Trigger, ...]
    steps: tuple[Step, ...]
    edges: tuple[Edge, ...]
    pauses: tuple[Pause, ...]
    roots: tuple[int, ...]  # edges whose parent is TRIGGER
    leaves: tuple[int, ...]  # steps without outgoing edges
    keys: tuple[bytes, ...]  # for each step the key of a JSON object, with the colon: `"id":`
    cancels: tuple[int, ...] = ()  # pauses whose event cancels the run
    idempotency: str | None = None
    rate_limit: RateLimit | None = None
    singleton: Singleton | None = None
    start_limits: tuple[Limit, ...] = ()  # those that the start of each run obeys
    step_limits: tuple[Limit, ...] = ()  # those that the attempts of all steps obey
    priority: str | None = None
    approval_steps: tuple[int, ...] = ()  # steps that people decide
    approval_bits: int = 0  # the same as a set: bit i stands for step i
    start_timeout_ms: int = 0  # from the creation of a run to its first attempt; 0: no limit
    finish_timeout_ms: int = 0  # from the first attempt to the end of the run; 0: no limit
    is_checked: bool = field(init=False)  # events may be refused

    def __post_init__(self) -> None:
        checks = (self.idempotency, self.rate_limit, self.singleton)
        object.__setattr__(self, "is_checked", any(check is not None for check in checks))

    @property
    def has_limits(self) -> bool:
        """Whether starts of runs or attempts may have to wait for a limit."""
        return bool(self.start_limits) or any(step.is_limited for step in self.steps)


class Starts(Protocol):
    """The triggers of a version: a plan, or the head of a version whose plan is not compiled yet."""

    @property
    def function_id(self) -> str: ...

    @property
    def triggers(self) -> tuple[Trigger, ...]: ...
