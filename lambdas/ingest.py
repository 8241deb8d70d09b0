"""`ingest`: answers `POST /e` and `/webhooks` once the events are durable."""

from stepwell.aws.api.ingest import ingest_of
from stepwell.aws.observability import observed
from stepwell.aws.resources import Resources

_ingest = ingest_of(Resources.from_environment())


@observed
def handler(event, context):  # type: ignore[no-untyped-def]
    return _ingest(event)
