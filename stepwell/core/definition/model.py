"""The models of a function definition: which fields there are, and what each may hold.

What is kept and compiled is the plain data of `Definition.normalised()`; reading it back needs no pydantic.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo

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
from stepwell.core.definition.problems import Problem
from stepwell.core.definition.runtimes import Approval, Docker, Http, Lambda
from stepwell.core.definition.semantic_checks import doubts

CUE = "cue"


def _def(value: object, info: ValidationInfo) -> object:
    return (field_validators.cue if info.data.get("format") == CUE else field_validators.schema)(value)


class EventDefinition(Model):
    """The type of a trigger's event, written where the event is named."""

    model_config = ConfigDict(json_schema_extra=rules.EVENT_DEFINITION)

    format: Literal["json-schema", "cue"] = Field(
        default="json-schema", description="The language of `def`. A type in CUE is accepted, and not checked."
    )
    synced: bool = Field(default=False, description="Whether other tools keep `def` up to date; for those tools only.")
    def_: Annotated[Any, AfterValidator(_def)] = Field(
        alias="def",
        description="A JSON Schema (2020-12), or the file that holds it, as in file://./order.schema.json.",
    )


class Trigger(Model):
    """What starts a run: an event, or a time."""

    model_config = ConfigDict(json_schema_extra=rules.TRIGGER)

    event: EventPattern | None = Field(default=None, description="An event's name, or a prefix that ends in `*`.")
    expression: Cel | None = Field(
        default=None, description="CEL over `event`, `user` and `data`; only true starts a run."
    )
    definition: EventDefinition | None = Field(default=None, description="The type of the event.")
    cron: Annotated[str, Field(min_length=1, max_length=256), pattern(rules.CRON)] | None = Field(
        default=None,
        description="Five fields: minute, hour, day of month, month, day of week.",
        examples=["0 9 * * mon-fri"],
    )
    timezone: str | None = Field(default=None, description="Of `cron`; UTC if not given.", examples=["Europe/Berlin"])


class Backoff(Model):
    """How long to wait before a retry: `initial`, then `factor` times longer each time, up to `max`."""

    initial: Duration = Field(default="10s", description="Before the first retry.")
    factor: float = Field(default=2.0, ge=1, le=1000, description="How much longer each delay is than the one before.")
    max: Duration = Field(default="1h", description="The longest delay.")
    jitter: float = Field(default=0.15, ge=0, le=1, description="The random share of a delay; 0.15 = +-15%.")


class Retries(Model):
    """What happens when an attempt fails in a way that another try could mend."""

    attempts: Annotated[int, Field(ge=0, le=20), Whole] = Field(
        default=4, description="Number of retries after the first try."
    )
    backoff: Backoff = Field(default=Backoff(), description="The delays before the retries.")


class Async(Model):
    """A pause until an event comes."""

    event: ExactEvent = Field(description="The exact name of the event to wait for.")
    match: Cel | None = Field(
        default=None,
        description="CEL over `event`, `steps`, `errors`, `response` and `async`, the incoming event.",
        examples=["async.data.order_id == event.data.order_id"],
    )
    ttl: Duration = Field(description="How long to wait for it, as in 2d; at most 366 days.")
    on_timeout: bool = Field(default=False, alias="onTimeout", description="Satisfied only if none came in time.")


class Edge(Model):
    """What this step comes after, and under which conditions."""

    model_config = ConfigDict(json_schema_extra=rules.EDGE)

    step: str = Field(description="The id of the step before, or `$trigger`.")
    on: Literal["success", "failure", "always"] = Field(default="success", description="How that step must have ended.")
    if_: Cel | None = Field(default=None, alias="if", description="CEL, evaluated once, when that step ends.")
    wait: Duration | None = Field(default=None, description="A delay before going on, as in 1h30m; at most 366 days.")
    async_: Async | None = Field(default=None, alias="async", description="A pause until an event comes.")


class Step(Model):
    """One program of the function."""

    model_config = ConfigDict(json_schema_extra=rules.STEP)

    id: str = Field(
        default="", description="The same as its key.", json_schema_extra={"pattern": rules.whole(field_validators.ID)}
    )
    name: Name = Field(
        default_factory=lambda fields: fields.get("id", ""), description="For people; the id if not given."
    )
    path: Path = Field(default="", description="The step's folder or file, as in file://./steps/send-sms.")
    runtime: Annotated[Lambda | Docker | Http | Approval, Field(discriminator="type")] = Field(
        default=Lambda(type="lambda"), description="What executes the step."
    )
    after: list[Edge] = Field(default=[], description="What this step comes after; empty: it starts with the run.")
    join: Literal["merge", "all", "first"] = Field(
        default="merge",
        description="`merge`: runs once all edges are settled and one is satisfied; `all`: if all are; "
        "`first`: as soon as one is.",
    )
    retries: Retries = Field(default=Retries(), description="What happens when an attempt fails.")
    timeout: Duration = Field(default="15m", description="For each attempt; 7d for an approval if not given.")
    env: dict[Variable, Argument] = Field(
        default={}, description="Environment variables.", json_schema_extra=rules.keys(field_validators.VARIABLE)
    )
    secrets: list[Variable] = Field(default=[], description="Names of secrets, given as environment variables.")


class Cancel(Model):
    """An event that ends the function's running runs."""

    event: ExactEvent = Field(description="The exact name of the event.")
    if_: Cel | None = Field(
        default=None,
        alias="if",
        description="CEL over the run's `event`, `user` and `data`, and `async`, the incoming event; true cancels.",
        examples=["async.data.order_id == event.data.order_id"],
    )
    timeout: Duration | None = Field(
        default=None, description="For how long after the run was made; if absent, to the run's end."
    )


class Definition(Model):
    """A Stepwell function: which events start it, and which steps run in which order."""

    schema_: str | None = Field(default=None, alias="$schema", description="The address of this schema, for editors.")
    id: Id = Field(description="The function's id: a-z, 0-9 and -, at most 64 characters.")
    name: Name = Field(default_factory=lambda fields: fields.get("id", ""), description="For people; the id if absent.")
    triggers: list[Trigger] = Field(min_length=1, description="What starts a run: events, or times.")
    steps: dict[Id, Step] = Field(
        default={},
        max_length=1000,
        description="By id. None given: the folder is one.",
        json_schema_extra=rules.keys(field_validators.ID),
    )
    cancel: list[Cancel] = Field(default=[], max_length=10, description="Events that end the function's running runs.")
    idempotency: Cel | None = Field(
        default=None,
        description="CEL over `event`, `user` and `data`: one run for each of its values in 24 hours.",
        examples=["event.data.order_id"],
    )

    def normalised(self) -> dict[str, Any]:
        """Plain JSON data with every default filled in: what is stored, hashed and compiled to a plan.

        Absent stays what has no default (`if`, `match`, `memory`...). It can be parsed again, to an equal definition.
        """
        data = self.model_dump(by_alias=True, exclude_none=True, exclude={"schema_"})
        for trigger in data["triggers"]:
            if "cron" in trigger:
                trigger.setdefault("timezone", "UTC")
            if trigger.get("definition", {}).get("format") == CUE:  # which nobody reads
                del trigger["definition"]
        if not data["cancel"]:  # so that versions made before there was such a field keep their hash
            del data["cancel"]
        for step in data["steps"].values():
            step["after"] = step["after"] or [{"step": "$trigger"}]
            for edge in step["after"]:
                if edge["step"] == "$trigger":
                    edge.pop("on", None)
        return data

    def warnings(self) -> list[Problem]:
        """What is allowed, and probably not meant."""
        return [*self._types_in_cue(), *doubts(self.normalised())]

    def _types_in_cue(self) -> Iterator[Problem]:
        for i, trigger in enumerate(self.triggers):
            if trigger.definition is not None and trigger.definition.format == CUE:
                message = (
                    f"definition: the type of {trigger.event} is written in CUE, which is not checked, so its events"
                    " are accepted whatever they hold; write it as a JSON Schema with the format json-schema"
                    " (`stepwell types infer` makes one of events), or remove `definition`"
                )
                yield Problem(("triggers", i, "definition"), message)
