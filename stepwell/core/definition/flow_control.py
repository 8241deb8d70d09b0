"""The models of flow control: fields that decide when runs and steps start, in which order, and when runs end."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from stepwell.core.definition import schema_rules as rules
from stepwell.core.definition.fields import Cel, Duration, Id, Model, Whole
from stepwell.core.flow.limits import MAX_LIMIT

MOST_STARTS = 10_000  # in one period: a start has its own row, and on AWS one of twenty is an item
_KEY = (
    "A CEL expression over `event`, `user` and `data`. Each value has a limit of its own. Default: one limit for all."
)
_STEP_KEY = _KEY.replace("`event`, `user` and `data`", "`event`, `user`, `data`, `steps` and `errors`")
_GROUP = "A name. All limits with this name are one limit, also those of other functions."
_Count = Annotated[int, Field(ge=1, le=MAX_LIMIT), Whole]


class StepConcurrency(Model):
    """How many attempts of a step may execute at a time."""

    limit: _Count | None = Field(default=None, description="The maximum number. Optional for a `group`.")
    key: Cel | None = Field(default=None, description=_STEP_KEY)
    group: Id | None = Field(default=None, description=_GROUP)


class Concurrency(Model):
    """How many steps of a function, or runs of it, may execute at a time."""

    limit: _Count | None = Field(default=None, description="The maximum number. Optional for a `group`.")
    key: Cel | None = Field(default=None, description=_KEY)
    scope: Literal["steps", "run"] = Field(
        default="steps",
        description="What is counted. `steps`: attempts that execute; a run that sleeps or waits counts nothing. `run`:"
        " runs that have started and not ended.",
    )
    group: Id | None = Field(default=None, description=_GROUP)


class Throttle(Model):
    """How often runs of a function start. What is over the limit waits, and starts in order, evenly spread."""

    limit: _Count = Field(description="The number of starts in each `period`.")
    period: Duration = Field(description="The period, as in 1m; at most 31 days.")
    burst: Annotated[int, Field(ge=0, le=MAX_LIMIT), Whole] = Field(
        default=0, description="The number of further starts that need not be spread, after a time without starts."
    )
    key: Cel | None = Field(default=None, description=_KEY)


class StepThrottle(Throttle):
    """How often attempts of a step start. What is over the limit waits, and starts in order, evenly spread."""

    key: Cel | None = Field(default=None, description=_STEP_KEY)
    group: Id | None = Field(default=None, description=_GROUP)


class RateLimit(Model):
    """At most `limit` runs start in any `period`. Further events start no run."""

    limit: Annotated[int, Field(ge=1, le=MOST_STARTS), Whole] = Field(
        description="The maximum number of starts in any period, at most 10,000."
    )
    period: Duration = Field(description="The length of the period, as in 1h; at most 366 days.")
    key: Cel | None = Field(
        default=None,
        description="A CEL expression over `event`, `user` and `data`. Each of its values has a limit of its own.",
        examples=["user.id"],
    )


class Singleton(Model):
    """One open run for each key."""

    key: Cel | None = Field(
        default=None,
        description="A CEL expression over `event`, `user` and `data`. Each of its values may have one open run.",
        examples=["data.account"],
    )
    mode: Literal["skip", "cancel"] = Field(
        description="What an event does while a run with the same key is open. `skip`: it starts no run. `cancel`: it"
        " cancels that run, and starts a new one."
    )


class Timeouts(Model):
    """Limits for the time of a run. A run that exceeds one is cancelled, with `reason: timeout`."""

    model_config = ConfigDict(json_schema_extra=rules.TIMEOUTS)

    start: Duration | None = Field(
        default=None,
        description="The maximum time from the creation of a run until its first attempt starts. Delays and waits"
        " before the first step count.",
        examples=["10m"],
    )
    finish: Duration | None = Field(
        default=None,
        description="The maximum time from the start of the first attempt until the run ends.",
        examples=["2h"],
    )


def _as_list(value: object) -> object:
    return [value] if isinstance(value, dict) else value


def _one_or_list(schema: dict[str, Any]) -> None:
    """Changes the JSON Schema of a list, so that it accepts one item without a list too."""
    array = {name: schema.pop(name) for name in ("type", "items", "maxItems") if name in schema}
    schema["anyOf"] = [array["items"], array]


Concurrencies = Annotated[
    list[Concurrency], BeforeValidator(_as_list), Field(max_length=3, json_schema_extra=_one_or_list)
]
StepConcurrencies = Annotated[
    list[StepConcurrency], BeforeValidator(_as_list), Field(max_length=3, json_schema_extra=_one_or_list)
]
