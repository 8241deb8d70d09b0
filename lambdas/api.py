"""`api`: answers `/v1`, `/openapi.json` and `/healthz`."""

from stepwell.aws.api.app import api_of
from stepwell.aws.engine.control import control
from stepwell.aws.observability import observed
from stepwell.aws.resources import Resources

_api = api_of(Resources.from_environment(), control)


@observed
def handler(event, context):  # type: ignore[no-untyped-def]
    return _api(event, context)
