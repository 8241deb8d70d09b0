"""The metrics that services report, and their dimensions.

For AWS services they are copied from the documentation; for Stepwell's own metrics the code is run. CloudWatch accepts
alarms on any other metric too, but such an alarm never has data.
"""

from __future__ import annotations

import ast
import functools
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stepwell.aws import observability
from stepwell.core.run.run import RunStatus

AWS_SOURCES = Path(observability.__file__).parent
STATUSES = {  # what stands behind the prefix of a metric's name
    "Runs": [status.name for status in RunStatus if status is not RunStatus.RUNNING],
    "Attempts": ["completed", "failed", "lost", "cancelled"],
}


WRITE = """
import sys
from types import SimpleNamespace
from stepwell.aws.observability import count, observed

@observed
def handler(event, context):
    for name in sys.argv[1:]:
        count(name)

handler({}, SimpleNamespace(aws_request_id="1"))
"""


@dataclass(frozen=True)
class Emitted:
    """A metric that a service reports. `statistics`: the statistics that are useful for this metric."""

    dimensions: tuple[frozenset[str], ...]
    statistics: frozenset[str]


def _emitted(*dimensions: str, by: str = "Sum") -> Emitted:
    return Emitted(tuple(frozenset(one.split()) for one in dimensions), frozenset(by.split()))


PERCENTILES = "p50 p95 p99 Average Maximum"
# https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-monitoring.html: "RuleName" alone is a rule on the default
# bus, both are a rule on a custom bus.
_RULE = _emitted("RuleName", "EventBusName RuleName")
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
_QUEUE = _emitted("QueueName", by="Maximum")
# https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html and .../monitoring-metrics-view.html. Those
# without a dimension are documented, but not for which metrics. So only the dimension FunctionName is used.
_LAMBDA = _emitted("FunctionName")
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/metrics-dimensions.html: the table's numbers do not
# include those of the indexes.
_TABLE = _emitted("TableName", "TableName GlobalSecondaryIndexName")
# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-metrics.html
_API = _emitted("ApiId", "ApiId Stage")

OF_SERVICES: dict[tuple[str, str], Emitted] = {
    ("AWS/Events", "FailedInvocations"): _RULE,
    ("AWS/Events", "InvocationsFailedToBeSentToDlq"): _RULE,
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible"): _QUEUE,
    ("AWS/SQS", "ApproximateAgeOfOldestMessage"): _QUEUE,
    ("AWS/SQS", "NumberOfMessagesSent"): _emitted("QueueName"),
    ("AWS/Lambda", "Errors"): _LAMBDA,
    ("AWS/Lambda", "Throttles"): _LAMBDA,
    ("AWS/Lambda", "Invocations"): _LAMBDA,
    ("AWS/Lambda", "DestinationDeliveryFailures"): _LAMBDA,
    ("AWS/Lambda", "RecursiveInvocationsDropped"): _LAMBDA,
    ("AWS/Lambda", "Duration"): _emitted("FunctionName", by=f"{PERCENTILES} Sum"),
    ("AWS/DynamoDB", "ReadThrottleEvents"): _TABLE,
    ("AWS/DynamoDB", "WriteThrottleEvents"): _TABLE,
    ("AWS/DynamoDB", "ConsumedReadCapacityUnits"): _TABLE,
    ("AWS/DynamoDB", "ConsumedWriteCapacityUnits"): _TABLE,
    ("AWS/ApiGateway", "5xx"): _API,
    ("AWS/ApiGateway", "Count"): _emitted("ApiId", "ApiId Stage", by="Sum SampleCount"),
}


@dataclass(frozen=True)
class OwnMetrics:
    """The metrics of the engine's Lambdas: names, and their common namespace and dimensions."""

    names: frozenset[str]
    namespace: str
    dimensions: dict[str, str]


@functools.cache
def own_metrics(env: str) -> OwnMetrics:
    """Stepwell's own metrics: the names are read from the source code; the format from metrics that a separate process
    writes."""
    names = frozenset(_names())
    done = subprocess.run(
        [sys.executable, "-c", WRITE, *sorted(names)],
        env={**os.environ, "STEPWELL_ENV_NAME": env},
        capture_output=True,
        text=True,
        check=True,
    )
    written = json.loads(done.stdout)
    (directive,) = written["_aws"]["CloudWatchMetrics"]
    (dimensions,) = directive["Dimensions"]
    assert {metric["Name"] for metric in directive["Metrics"]} == names
    return OwnMetrics(names, directive["Namespace"], {name: written[name] for name in dimensions})


def _names() -> Iterator[str]:
    """The names in all calls of `count` and `duration`; those made from a status, for each status."""
    for file in sorted(AWS_SOURCES.glob("**/*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
                continue
            if node.func.id in ("count", "duration"):
                module = file.relative_to(AWS_SOURCES).with_suffix("").parts
                yield from _named(node.args[0], ".".join(("stepwell", "aws", *module)))


def _named(argument: ast.expr, module: str) -> Iterator[str]:
    if isinstance(argument, ast.Constant):
        yield str(argument.value)
    elif isinstance(argument, ast.Name) and argument.id.isupper():
        yield str(getattr(importlib.import_module(module), argument.id))
    elif isinstance(argument, ast.JoinedStr):
        prefix = argument.values[0]
        assert isinstance(prefix, ast.Constant)
        yield from (f"{prefix.value}{status.capitalize()}" for status in STATUSES[str(prefix.value)])
