"""`advance`: folds outcomes and timers from the queue `outcomes` into runs, and starts the next steps."""

from stepwell.aws.engine.queue_consumer import queue_consumer
from stepwell.aws.observability import observed
from stepwell.aws.queues.redelivery import redelivered_soon


@observed
@redelivered_soon
def handler(event, context):  # type: ignore[no-untyped-def]
    return queue_consumer().advance(event)
