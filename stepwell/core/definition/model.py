"""The models of a function definition: the fields, and the allowed values of each.

`Definition.normalised()` returns the plain data that is stored and compiled. Reading it back needs no pydantic.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag, ValidationInfo

from stepwell.core.definition import field_validators
from stepwell.core.definition import schema_rules as rules
from stepwell.core.definition.fields import (
    Argument,
    Cel,
    Duration,
    EventPattern,
    ExactEvent,
    Id,
    Model,
    Name,
    Path,
    Variable,
    Whole,
    pattern,
)
from stepwell.core.definition.flow_control import (
    Concurrencies,
    RateLimit,
    Singleton,
    StepConcurrencies,
    StepThrottle,
    Throttle,
    Timeouts,
)
from stepwell.core.definition.problems import Problem
from stepwell.core.definition.runtimes import Approval, Celery, Docker, Emit, Faktory, Http, Lambda, Wasm
from stepwell.core.definition.semantic_checks import find_warnings

CUE = "cue"


def _def(value: object, info: ValidationInfo) -> object:
    return (field_validators.cue if info.data.get("format") == CUE else field_validators.schema)(value)


class EventDefinition(Model):
    """The schema of a trigger's event, written in the trigger."""

    model_config = ConfigDict(json_schema_extra=rules.EVENT_DEFINITION)

    format: Literal["json-schema", "cue"] = Field(
        default="json-schema", description="The language of `def`. A CUE type is accepted, but not checked."
    )
    synced: bool = Field(
        default=False, description="Whether another tool keeps `def` up to date. Stepwell does not use this field."
    )
    def_: Annotated[Any, AfterValidator(_def)] = Field(
        alias="def",
        description="A JSON Schema (2020-12), or a file that contains one, as in file://./order.schema.json.",
    )


class Trigger(Model):
    """Starts a run on an event or on a schedule."""

    model_config = ConfigDict(json_schema_extra=rules.TRIGGER)

    event: EventPattern | None = Field(
        default=None, description="The name of an event, or a prefix that ends in `*`, as in user/*."
    )
    expression: Cel | None = Field(
        default=None, description="A CEL expression over `event`, `user` and `data`. A run starts only if it is true."
    )
    definition: EventDefinition | None = Field(default=None, description="The schema of the event.")
    cron: Annotated[str, Field(min_length=1, max_length=256), pattern(rules.CRON)] | None = Field(
        default=None,
        description="A schedule of five fields: minute, hour, day of month, month, day of week.",
        examples=["0 9 * * mon-fri"],
    )
    timezone: str | None = Field(
        default=None, description="The time zone of `cron`. Default: UTC.", examples=["Europe/Berlin"]
    )


class Backoff(Model):
    """The delays before retries: first `initial`, then `factor` times the previous delay, up to `max`."""

    initial: Duration = Field(default="10s", description="The delay before the first retry.")
    factor: float = Field(default=2.0, ge=1, le=1000, description="Each delay is this many times the previous one.")
    max: Duration = Field(default="1h", description="The maximum delay.")
    jitter: float = Field(default=0.15, ge=0, le=1, description="The random share of a delay: 0.15 is +-15%.")


class Retries(Model):
    """How often and when an attempt that failed is retried. Final failures, such as HTTP status 404, are not."""

    attempts: Annotated[int, Field(ge=0, le=20), Whole] = Field(
        default=4, description="The number of retries after the first attempt."
    )
    backoff: Backoff = Field(default=Backoff(), description="The delays before the retries.")


class Async(Model):
    """Pauses the edge until an event arrives."""

    event: ExactEvent = Field(description="The exact name of the event to wait for.")
    match: Cel | None = Field(
        default=None,
        description="A CEL expression over `event`, `steps`, `errors`, `response` and `async` (the incoming event). The"
        " event matches only if it is true.",
        examples=["async.data.order_id == event.data.order_id"],
    )
    ttl: Duration = Field(description="The maximum time to wait, as in 2d; at most 366 days.")
    on_timeout: bool = Field(
        default=False, alias="onTimeout", description="Take the edge only if no matching event arrived in time."
    )


class Until(Model):
    """A delay until a point in time."""

    until: Cel = Field(
        description="A CEL expression over `event`, `user`, `data`, `steps`, `errors` and `response`, evaluated once,"
        " when the step before ends: a timestamp, an RFC 3339 text, or milliseconds since 1970. A time in the past"
        " means at once; it may be at most 366 days ahead.",
        examples=["timestamp(data.starts_at) - duration('24h')"],
    )


def _kind_of_delay(value: Any) -> str:
    return "until" if isinstance(value, dict | Until) else "duration"


class Edge(Model):
    """A step that comes before this one, and the conditions for going on to this one."""

    model_config = ConfigDict(json_schema_extra=rules.EDGE)

    step: str = Field(description="The id of the step that comes before, or `$trigger`.")
    on: Literal["success", "failure", "always"] = Field(
        default="success", description="How the step before must end: completed, failed, or either."
    )
    if_: Cel | None = Field(
        default=None,
        alias="if",
        description="A CEL expression, evaluated once, when the step before ends. Only true takes the edge.",
    )
    wait: (
        Annotated[Annotated[Duration, Tag("duration")] | Annotated[Until, Tag("until")], Discriminator(_kind_of_delay)]
        | None
    ) = Field(
        default=None,
        description="A delay before this step: a duration, as in 1h30m, or until a time. At most 366 days.",
    )
    async_: Async | None = Field(default=None, alias="async", description="Wait for an event before this step.")


class Step(Model):
    """A step of the function: a program, a container, a WebAssembly module, an HTTP call, an approval or an event."""

    model_config = ConfigDict(json_schema_extra=rules.STEP)

    id: str = Field(
        default="",
        description="The id of the step: the same as the key in `steps`.",
        json_schema_extra={"pattern": rules.whole(field_validators.ID)},
    )
    name: Name = Field(
        default_factory=lambda fields: fields.get("id", ""), description="A name for people to read. Default: the id."
    )
    path: Path = Field(default="", description="The step's folder or file, as in file://./steps/send-sms.")
    runtime: Annotated[
        Lambda | Docker | Http | Wasm | Approval | Emit | Celery | Faktory, Field(discriminator="type")
    ] = Field(default=Lambda(type="lambda"), description="What executes the step. Default: `lambda`.")
    after: list[Edge] = Field(
        default=[], description="The steps that come before this one. Without any, the step starts with the run."
    )
    join: Literal["merge", "all", "first"] = Field(
        default="merge",
        description="When the step starts. `merge`: once all edges are settled, if at least one is satisfied. `all`:"
        " only if all edges are satisfied. `first`: as soon as one edge is satisfied.",
    )
    retries: Retries = Field(default=Retries(), description="How often and when a failed attempt is retried.")
    timeout: Duration = Field(default="15m", description="The maximum time of each attempt. Default for approvals: 7d.")
    env: dict[Variable, Argument] = Field(
        default={}, description="Environment variables.", json_schema_extra=rules.keys(field_validators.VARIABLE)
    )
    secrets: list[Variable] = Field(
        default=[], description="The names of secrets that the step gets as environment variables."
    )
    concurrency: StepConcurrencies = Field(
        default=[], description="How many attempts of the step may execute at a time: one limit, or a list of up to 3."
    )
    throttle: StepThrottle | None = Field(default=None, description="How often attempts of the step start.")


class Cancel(Model):
    """An event that cancels the function's running runs."""

    event: ExactEvent = Field(description="The exact name of the event.")
    if_: Cel | None = Field(
        default=None,
        alias="if",
        description="A CEL expression over the run's `event`, `user` and `data`, and `async` (the incoming event). The"
        " run is cancelled only if it is true.",
        examples=["async.data.order_id == event.data.order_id"],
    )
    timeout: Duration | None = Field(
        default=None,
        description="How long after the run's start the event cancels it. Default: until the run ends.",
    )


class Definition(Model):
    """A Stepwell function: the events that start it, and the steps that it runs."""

    schema_: str | None = Field(default=None, alias="$schema", description="The address of this schema, for editors.")
    id: Id = Field(description="The function's id: a-z, 0-9 and -, at most 64 characters.")
    name: Name = Field(
        default_factory=lambda fields: fields.get("id", ""), description="A name for people to read. Default: the id."
    )
    triggers: list[Trigger] = Field(min_length=1, description="The events and schedules that start a run.")
    steps: dict[Id, Step] = Field(
        default={},
        max_length=1000,
        description="The steps, by id. Default: one step, whose code is the function's folder.",
        json_schema_extra=rules.keys(field_validators.ID),
    )
    cancel: list[Cancel] = Field(
        default=[], max_length=10, description="Events that cancel the function's running runs."
    )
    idempotency: Cel | None = Field(
        default=None,
        description="A CEL expression over `event`, `user` and `data`. Events with an equal value start one run in 24"
        " hours.",
        examples=["event.data.order_id"],
    )
    rate_limit: RateLimit | None = Field(
        default=None, description="How many runs may start in any period. Events beyond that start no run."
    )
    singleton: Singleton | None = Field(
        default=None, description="One open run at a time. Default: any number of runs may be open."
    )
    timeouts: Timeouts | None = Field(
        default=None, description="Limits for the time of a run. Default: a run may take as long as its steps do."
    )
    concurrency: Concurrencies = Field(
        default=[],
        description="How many steps or runs of the function may execute at a time: one limit, or a list of up to 3.",
    )
    throttle: Throttle | None = Field(default=None, description="How often runs of the function start.")
    priority: Cel | None = Field(
        default=None,
        description="A CEL expression over `event`, `user` and `data`: a whole number from -600 to 600. A run with 60"
        " waits as if it had come 60 seconds earlier.",
        examples=["event.data.plan == 'enterprise' ? 120 : 0"],
    )

    def normalised(self) -> dict[str, Any]:
        """The definition as plain JSON data, with all defaults filled in. This is stored, hashed and compiled.

        Fields without a default (`if`, `match`, `memory`...) stay absent. Parsing the data gives an equal definition.
        """
        data = self.model_dump(by_alias=True, exclude_none=True, exclude={"schema_"})
        for trigger in data["triggers"]:
            if "cron" in trigger:
                trigger.setdefault("timezone", "UTC")
            if trigger.get("definition", {}).get("format") == CUE:  # CUE types are not used
                del trigger["definition"]
        for name in ("cancel", "concurrency"):  # so that versions from before these fields keep the same hash
            if not data[name]:
                del data[name]
        for step in data["steps"].values():
            if not step["concurrency"]:
                del step["concurrency"]
            step["after"] = step["after"] or [{"step": "$trigger"}]
            for edge in step["after"]:
                if edge["step"] == "$trigger":
                    edge.pop("on", None)
        return data

    def warnings(self) -> list[Problem]:
        """The parts of the definition that are allowed, but probably a mistake."""
        return [*self._types_in_cue(), *find_warnings(self.normalised())]

    def _types_in_cue(self) -> Iterator[Problem]:
        for i, trigger in enumerate(self.triggers):
            if trigger.definition is not None and trigger.definition.format == CUE:
                message = (
                    f"definition: the type of {trigger.event} is written in CUE, which is not checked: events with any"
                    " content are accepted; write a JSON Schema with the format json-schema"
                    " (`stepwell types infer` makes one from events), or remove `definition`"
                )
                yield Problem(("triggers", i, "definition"), message)
