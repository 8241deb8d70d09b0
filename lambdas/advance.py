"""Outcomes and timers from the queue `outcomes`: what ended, and what starts next."""

from stepwell.aws.entry import entry
from stepwell.aws.observe import observed
from stepwell.aws.redelivery import redelivered_soon


@observed
@redelivered_soon
def handler(event, context):  # type: ignore[no-untyped-def]
    return entry().advance(event)
