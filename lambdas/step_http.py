"""`step_http`: runs the steps with the runtime `http`, one request for each invocation."""

from stepwell.aws.observability import observed
from stepwell.aws.resources import Resources
from stepwell.aws.steps.http_step import HttpSteps

_steps = HttpSteps(Resources.from_environment())


@observed
def handler(event, context):  # type: ignore[no-untyped-def]
    return _steps.call(event, context.get_remaining_time_in_millis())
