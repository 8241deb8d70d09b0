"""`tick`: every minute, sends far timers and cron ticks, judges canaries, and finds stuck runs."""

from stepwell.aws.engine.scheduler import scheduler
from stepwell.aws.observability import observed


@observed
def handler(event, context):  # type: ignore[no-untyped-def]
    scheduler().tick()
