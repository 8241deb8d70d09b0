"""Every minute: far timers and cron triggers that are due soon, and runs that stand still."""

from stepwell.aws.engine.scheduler import scheduler
from stepwell.aws.observability import observed


@observed
def handler(event, context):  # type: ignore[no-untyped-def]
    scheduler().tick()
