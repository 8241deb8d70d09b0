"""Creates an environment in the emulated account: as much of what `cdk deploy` creates as the handlers use."""

from __future__ import annotations

import io
import json
import platform
import time
import zipfile
from importlib.resources import files
from typing import Any

from stepwell.aws.clients import client
from stepwell.aws.deploy.adapter import layer_zip
from stepwell.aws.queues.redelivery import LATEST_S, MAX_RECEIVES
from stepwell.aws.resources import VARIABLE, Resources, parameter
from stepwell.aws.signing.signing_keys import make_keys
from stepwell.aws.steps.dispatch import SOURCE
from stepwell.aws.table.keys import create_table
from stepwell.aws.topology import QUEUES, function

ENV = "test"
ENGINE_EVENTS = "engine-events"  # a queue with the engine's own events that are sent only to the bus
_ROLE = json.dumps({"Version": "2012-10-17", "Statement": []})


def provision(region: str, account: str, **settings: Any) -> Resources:
    """Creates an environment. `settings` are fields of `Resources`."""
    create_table(client("dynamodb"), "stepwell")
    place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    client("s3").create_bucket(Bucket="stepwell-code", **place)
    urls = {name: _queue(name) for name in QUEUES}
    urls[ENGINE_EVENTS] = client("sqs").create_queue(QueueName=ENGINE_EVENTS)["QueueUrl"]
    client("events").create_event_bus(Name="stepwell")
    arn = f"arn:aws:sqs:{region}:{account}"
    _rule("to-events", {"source": [{"anything-but": [SOURCE]}]}, f"{arn}:events")
    _rule("engine-events", {"source": [SOURCE]}, f"{arn}:{ENGINE_EVENTS}")
    defaults: dict[str, Any] = {
        "layers": {name: _layer(name) for name in ("x86_64", "arm64")},
        "cache_s": 0.0,  # a push takes effect at once
        "keys_cache_s": 0.0,
        "signing_keys_again_s": 0.0,
        "clock_skew_ms": 0,  # there is only one clock
        "step_subnets": ("subnet-0123abcd",),
        "step_security_groups": ("sg-0123abcd",),
        "retention_days": 3650,  # tests may travel far
    }
    resources = Resources(
        env=ENV,
        region=region,
        account=account,
        table="stepwell",
        bus="stepwell",
        events_queue=urls["events"],
        events_queue_arn=f"{arn}:events",
        outcomes_queue=urls["outcomes"],
        outcomes_queue_arn=f"{arn}:outcomes",
        bucket="stepwell-code",
        step_http="stepwell-step-http",
        api_url="https://stepwell.test",
        **{**defaults, **settings},
    )
    make_keys(client("ssm"), resources, time.time_ns() // 1_000_000)
    client("ssm").put_parameter(Name=parameter(ENV), Value=resources.to_json(), Type="String")
    _step_http(resources)
    return resources


def _queue(name: str) -> str:
    """Creates a queue with a dead-letter queue. Returns the URL."""
    sqs = client("sqs")
    dead = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
    dead_arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    redrive = json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": str(MAX_RECEIVES)})
    attributes = {"RedrivePolicy": redrive, "VisibilityTimeout": str(LATEST_S)}
    url: str = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    return url


def _rule(name: str, pattern: dict[str, Any], queue_arn: str) -> None:
    events = client("events")
    events.put_rule(Name=name, EventBusName="stepwell", EventPattern=json.dumps(pattern))
    events.put_targets(Rule=name, EventBusName="stepwell", Targets=[{"Id": "queue", "Arn": queue_arn}])


def _layer(architecture: str) -> str:
    """Publishes the adapter's layer.

    Returns the ARN. Both architectures get the binary for this machine's processor.
    """
    own = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
    published = client("lambda").publish_layer_version(
        LayerName=f"adapter-{architecture.replace('_', '-')}", Content={"ZipFile": layer_zip(own).read_bytes()}
    )
    arn: str = published["LayerVersionArn"]
    return arn


def _step_http(resources: Resources) -> None:
    """Creates the Lambda for `http` steps. The sandbox runs this Python, so Stepwell can be imported there."""
    value = function("step_http")
    source = files("stepwell.aws.lambdas") / f"{value.name}.py"
    role = client("iam").create_role(RoleName="stepwell-step-http", AssumeRolePolicyDocument=_ROLE)["Role"]["Arn"]
    client("lambda").create_function(
        FunctionName=resources.step_http,
        Runtime="python3.13",
        Handler="step_http.handler",
        Role=role,
        Code={"ZipFile": _zip({"step_http.py": source.read_bytes()})},
        Environment={"Variables": {VARIABLE: resources.to_json()}},
        Timeout=value.timeout_s,
        MemorySize=value.memory_mb,
    )
    queue = {"Destination": resources.outcomes_queue_arn}
    client("lambda").put_function_event_invoke_config(
        FunctionName=resources.step_http,
        MaximumRetryAttempts=0,
        MaximumEventAgeInSeconds=resources.event_age_s,
        DestinationConfig={"OnSuccess": queue, "OnFailure": queue},
    )


def _zip(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o755 << 16
            archive.writestr(info, data)
    return content.getvalue()
