"""Every minute: far timers and cron triggers that are due soon, and runs that stand still."""

from stepwell.aws.engine.queue_consumer import entry
from stepwell.aws.observability import observed


@observed
def handler(event, context):  # type: ignore[no-untyped-def]
    entry().tick()
