"""The engine's Lambdas: the one list of them, with what starts each and where what it does goes on.

`infra` deploys it, `stepwell.testing` runs it on an emulated account, and tests hold roles and alarms against it. One
rule: nothing but data; the entry points of the same names are in `lambdas/`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Queue:
    """Batches of a queue, with an answer that says which messages must come again."""

    name: str
    most_messages: int = 10  # less by the setting `batch_size`


@dataclass(frozen=True, slots=True)
class Schedule:
    minutes: int


@dataclass(frozen=True, slots=True)
class Http:
    """Requests to the HTTP API with these methods and paths; none: all that have no other Lambda."""

    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    def takes(self, method: str, path: str) -> bool:
        return method in self.methods and any(_pattern(name).fullmatch(path) for name in self.paths)


@dataclass(frozen=True, slots=True)
class EngineInvocation:
    """The engine's own asynchronous invocations, as those of any step; what comes of them goes to this queue."""

    answers: str


@dataclass(frozen=True, slots=True)
class CustomResource:
    """CloudFormation, for functions that stacks hold."""


Trigger = Queue | Schedule | Http | EngineInvocation | CustomResource

STEPS, BUS, OUTCOMES, EVENTS = "steps", "bus", "outcomes", "events"
"""Where what a Lambda does may go on: Lambdas and tasks of steps, the environment's bus, the two queues."""


@dataclass(frozen=True, slots=True)
class Function:
    """`memory_mb` None: the setting `memory`."""

    name: str
    text: str
    trigger: Trigger
    timeout_s: int
    calls: tuple[str, ...] = ()
    memory_mb: int | None = None
    layers: tuple[str, ...] = ("light", "expressions")


_ENGINE = (STEPS, BUS, OUTCOMES)
FUNCTIONS = (
    Function(
        "ingest",
        "POST /e and /webhooks: takes events",
        Http(
            ("POST", "OPTIONS", "GET", "HEAD"), ("/e", "/e/{key+}", "/webhooks/{name+}")
        ),  # also with a slash at the end
        timeout_s=29,
        calls=(BUS, EVENTS),  # one of them, by the setting `ingest`
        memory_mb=512,
        layers=("light", "expressions", "types"),
    ),
    Function(
        "api",
        "The HTTP API, but for POST /e",
        Http(),
        timeout_s=29,
        calls=_ENGINE,
        memory_mb=1024,
        layers=("light", "expressions", "openapi", "types"),
    ),
    Function(
        "route",
        "Stores events, starts runs, wakes waits",
        Queue(EVENTS),
        timeout_s=60,
        calls=_ENGINE,
        layers=("light", "expressions", "types"),
    ),
    Function(
        "advance", "Takes outcomes and timers, starts the next steps", Queue(OUTCOMES), timeout_s=60, calls=_ENGINE
    ),
    Function(
        "tick",
        "Every minute: far timers, cron triggers, runs that stand still",
        Schedule(minutes=1),
        timeout_s=55,
        calls=(OUTCOMES,),
        memory_mb=1769,  # a whole vCPU: it sends far timers as fast as that goes
    ),
    Function(
        "step_http",
        "Runs the steps with the runtime `http`",
        EngineInvocation(answers=OUTCOMES),
        timeout_s=900,
        calls=(OUTCOMES,),
        memory_mb=256,
        layers=("light",),
    ),
    Function(
        "register",
        "Registers functions, types and webhooks that stacks hold",
        CustomResource(),
        timeout_s=60,
        memory_mb=512,
        layers=("light", "expressions", "types"),
    ),
)
QUEUES = tuple(function.trigger.name for function in FUNCTIONS if isinstance(function.trigger, Queue))


DEFAULT = next(function for function in FUNCTIONS if isinstance(function.trigger, Http) and not function.trigger.paths)
"""Who answers what no other Lambda does."""


def function(name: str) -> Function:
    return next(function for function in FUNCTIONS if function.name == name)


def reader(queue: str) -> Function:
    """The one that takes a queue's messages."""
    return next(
        function for function in FUNCTIONS if isinstance(function.trigger, Queue) and function.trigger.name == queue
    )


def server(method: str, path: str) -> Function:
    """The one that answers a request to the HTTP API; `path` without a query."""
    of_http = (
        function
        for function in FUNCTIONS
        if isinstance(function.trigger, Http) and function.trigger.takes(method, path)
    )
    return next(of_http, DEFAULT)


def _pattern(path: str) -> re.Pattern[str]:
    """`{name}` stands for one part of a path, `{name+}` for all that follows, and be it nothing."""
    part = re.compile(r"\\\{\w+(\\\+)?\\\}")
    return re.compile(part.sub(lambda found: ".*" if found[1] else "[^/]+", re.escape(path)))
