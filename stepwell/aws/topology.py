"""The list of the engine's Lambdas: what triggers each one, and where each one sends work.

`infra` deploys this list, `stepwell.testing` runs it on an emulated account, and tests compare roles and alarms with
it. It is data only; the entry points, under the same names, are in `lambdas/`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Queue:
    """Triggered by batches of an SQS queue. The answer lists the messages that SQS must deliver again."""

    name: str
    most_messages: int = 10  # messages in a batch; the setting `batch_size` lowers it


@dataclass(frozen=True, slots=True)
class Schedule:
    minutes: int


@dataclass(frozen=True, slots=True)
class Http:
    """Triggered by requests to the HTTP API with these methods and paths. Without paths: by all other requests."""

    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    def takes(self, method: str, path: str) -> bool:
        return method in self.methods and any(_pattern(name).fullmatch(path) for name in self.paths)


@dataclass(frozen=True, slots=True)
class EngineInvocation:
    """Invoked asynchronously by the engine, like the Lambda of a step. Outcomes go to the queue `answers`."""

    answers: str


@dataclass(frozen=True, slots=True)
class CustomResource:
    """Triggered by CloudFormation, for functions that are part of a stack."""


Trigger = Queue | Schedule | Http | EngineInvocation | CustomResource

STEPS, BUS, OUTCOMES, EVENTS = "steps", "bus", "outcomes", "events"
"""Where a Lambda may send work: the Lambdas and tasks of steps, the bus of the environment, the two queues."""


@dataclass(frozen=True, slots=True)
class Function:
    """One of the engine's Lambdas. `memory_mb` None: the setting `memory` applies."""

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
        "Accepts events: POST /e and /webhooks",
        Http(
            ("POST", "OPTIONS", "GET", "HEAD"), ("/e", "/e/{key+}", "/webhooks/{name+}")
        ),  # also with a trailing slash
        timeout_s=29,
        calls=(BUS, EVENTS),  # the setting `ingest` chooses
        memory_mb=512,
        layers=("light", "expressions", "types"),
    ),
    Function(
        "api",
        "Answers the HTTP API, except POST /e and /webhooks",
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
        "advance",
        "Folds outcomes and timers into runs, starts the next steps",
        Queue(OUTCOMES),
        timeout_s=60,
        calls=_ENGINE,
        layers=("light", "expressions", "types"),  # events of steps are checked
    ),
    Function(
        "tick",
        "Every minute: far timers, cron triggers, stuck runs",
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
        "Registers the functions, types and webhooks of stacks",
        CustomResource(),
        timeout_s=60,
        memory_mb=512,
        layers=("light", "expressions", "types"),
    ),
)
QUEUES = tuple(function.trigger.name for function in FUNCTIONS if isinstance(function.trigger, Queue))


DEFAULT = next(function for function in FUNCTIONS if isinstance(function.trigger, Http) and not function.trigger.paths)
"""The Lambda that answers all requests that no other Lambda answers."""


def function(name: str) -> Function:
    return next(function for function in FUNCTIONS if function.name == name)


def reader(queue: str) -> Function:
    """The Lambda that a queue triggers."""
    return next(
        function for function in FUNCTIONS if isinstance(function.trigger, Queue) and function.trigger.name == queue
    )


def server(method: str, path: str) -> Function:
    """The Lambda that answers a request to the HTTP API. `path` contains no query."""
    of_http = (
        function
        for function in FUNCTIONS
        if isinstance(function.trigger, Http) and function.trigger.takes(method, path)
    )
    return next(of_http, DEFAULT)


def _pattern(path: str) -> re.Pattern[str]:
    """A regular expression for a path: `{name}` matches one segment, `{name+}` the rest, which may be empty."""
    part = re.compile(r"\\\{\w+(\\\+)?\\\}")
    return re.compile(part.sub(lambda found: ".*" if found[1] else "[^/]+", re.escape(path)))
