"""Traces of the engine's Lambdas: only if they are turned on, and only for invocations that Lambda samples."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import Any

import pytest

HANDLER = """
import sys
import boto3
from botocore.stub import Stubber
from stepwell.aws.observability import observed

@observed
def handler(event, context):
    db = boto3.client("dynamodb")
    with Stubber(db) as stubber:
        stubber.add_response("get_item", {})
        db.get_item(TableName="stepwell", Key={"pk": {"S": "x"}})
    return "answer"

assert handler({}, None) == "answer"
print("aws_xray_sdk" in sys.modules)
"""


STARTER = """
from concurrent.futures import ThreadPoolExecutor
import boto3
from botocore.awsrequest import AWSResponse
from stepwell.aws.observability import observed

lambdas, seen = boto3.client("lambda"), []

def answer(request, **_):
    seen.append(request.headers.get("X-Amzn-Trace-Id", b"").decode())
    return AWSResponse(request.url, 202, {}, None)

@observed
def handler(event, context):
    lambdas.meta.events.register("before-send.lambda.Invoke", answer)
    with ThreadPoolExecutor() as pool:  # as the dispatcher does
        pool.submit(lambdas.invoke, FunctionName="step", InvocationType="Event", Payload=b"{}").result()

handler({}, None)
print(*seen)
"""


def run(sampled: bool, code: str = HANDLER, **env: str) -> tuple[str, list[dict[str, Any]]]:
    """The output of a Lambda's process, and the segments that it sends to X-Ray's daemon."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        on_lambda = {
            "LAMBDA_TASK_ROOT": "/var/task",
            "AWS_LAMBDA_FUNCTION_NAME": "route",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_XRAY_DAEMON_ADDRESS": f"127.0.0.1:{daemon.getsockname()[1]}",
            "_X_AMZN_TRACE_ID": f"Root=1-5759e988-bd862e3fe1be46a994272793;Parent=557abcec3ee5a047;Sampled={sampled:d}",
        }
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **on_lambda, **env},
            capture_output=True,
            text=True,
            check=True,
        )
        daemon.setblocking(False)
        sent = []
        while True:
            try:
                sent.append(json.loads(daemon.recv(65536).split(b"\n", 1)[1]))
            except BlockingIOError:
                return done.stdout.splitlines()[-1], sent


def test_what_a_sampled_invocation_asks_of_aws_is_traced() -> None:
    _, sent = run(sampled=True, STEPWELL_TRACING="true")
    request, handler = sorted(sent, key=lambda fields: str(fields["end_time"]))
    assert handler["name"] == "## handler"
    assert (request["name"], request["aws"]["operation"]) == ("dynamodb", "GetItem")
    assert request["parent_id"] == handler["id"]
    assert "answer" not in json.dumps(sent)  # useless in a trace, and may contain personal data


@pytest.mark.parametrize(("sampled", "env"), [(False, {"STEPWELL_TRACING": "true"}), (True, {})])
def test_nothing_else_is_traced(sampled: bool, env: dict[str, str]) -> None:
    printed, sent = run(sampled=sampled, **env)
    assert sent == []
    assert printed == str(bool(env))  # without traces, the tracer is not imported


def test_a_step_that_a_traced_lambda_starts_is_part_of_its_trace() -> None:
    """Lambda takes the trace from the request that invokes the function, even if it runs later:
    https://docs.aws.amazon.com/lambda/latest/dg/services-xray.html
    """
    header, _ = run(sampled=True, code=STARTER, STEPWELL_TRACING="true")
    assert header.startswith("Root=1-5759e988-bd862e3fe1be46a994272793;Parent=")
    assert header.endswith(";Sampled=1")
