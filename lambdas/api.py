"""`/v1`, `/openapi.json` and `/healthz`: what exists and what happened, cancel and rerun."""

from stepwell.aws.api import api_of
from stepwell.aws.entry import entry
from stepwell.aws.observe import observed
from stepwell.aws.resources import Resources

_api = api_of(Resources.from_environment(), entry)


@observed
def handler(event, context):  # type: ignore[no-untyped-def]
    return _api(event, context)
