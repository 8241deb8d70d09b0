"""The Lambda of a source, which `stepwell.cdk.Source` creates: makes events of delivered records."""

import os

from stepwell.aws.api.ingest import sinks_of
from stepwell.aws.api.source import QUARANTINE, RULE, SourceFunction, rule_of
from stepwell.aws.observability import observed
from stepwell.aws.resources import Resources

_accept, _judge = sinks_of(Resources.from_environment())
_source = SourceFunction(rule_of(os.environ[RULE]), _accept, _judge, os.environ[QUARANTINE])


@observed
def handler(event, context):  # type: ignore[no-untyped-def]
    return _source(event)
