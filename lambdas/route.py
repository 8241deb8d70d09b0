"""Events from the queue `events`: stored once, start runs, wake waits."""

from stepwell.aws.entry import entry
from stepwell.aws.observe import observed
from stepwell.aws.redelivery import redelivered_soon


@observed
@redelivered_soon
def handler(event, context):  # type: ignore[no-untyped-def]
    return entry().route(event)
