"""What a definition compiles to: frozen, light, by index instead of by name.

A plan is compiled from the *normalised* definition (`Definition.normalised()`, plain JSON data with every default
filled in), which is what stores keep; so loading a plan never needs pydantic.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

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
    """`is_approval`: people decide the step; nothing is executed then. `calls`: it calls a web address, and needs no
    processor here. Both follow from its runtime; each transition asks for them."""

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
    is_approval: bool = field(init=False)
    calls: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_approval", self.runtime.type == "approval")
        object.__setattr__(self, "calls", self.runtime.type == "http")


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
    """What says when a version of a function starts: a plan, or the head of one that is not compiled yet."""

    @property
    def function_id(self) -> str: ...

    @property
    def triggers(self) -> tuple[Trigger, ...]: ...
