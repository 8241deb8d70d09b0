"""The models of flow control: fields of a function that decide when its runs start, and when they end."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from stepwell.core.definition import schema_rules as rules
from stepwell.core.definition.fields import Duration, Model


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
