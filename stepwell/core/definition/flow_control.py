"""The models of flow control: fields of a function that decide when its runs start, and when they end."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from stepwell.core.definition import schema_rules as rules
from stepwell.core.definition.fields import Cel, Duration, Model, Whole

MOST_STARTS = 10_000  # in one period: a start has its own row, and on AWS one of twenty is an item


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
