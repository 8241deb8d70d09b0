"""Every minute: far timers and cron triggers that are due soon, and runs that stand still."""

from stepwell.aws.entry import entry
from stepwell.aws.observe import observed


@observed
def handler(event, context):  # type: ignore[no-untyped-def]
    entry().tick()
