"""`register`: registers the functions, event types and webhooks of CloudFormation stacks, and retires functions."""

from stepwell.aws.functions.custom_resource import handle
from stepwell.aws.observability import observed
from stepwell.aws.resources import Resources

_resources = Resources.from_environment()


@observed
def handler(event, context):  # type: ignore[no-untyped-def]
    handle(event, _resources)
