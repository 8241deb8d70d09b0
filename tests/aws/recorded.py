"""The AWS platform with every request to AWS recorded under the Lambda that made it, as IAM would see it."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import boto3
from botocore.awsrequest import AWSPreparedRequest

from stepwell.aws.clients import client
from stepwell.aws.deploy import adapter
from stepwell.aws.resources import VARIABLE, Resources
from stepwell.aws.steps.container_names import STEP
from stepwell.aws.table.keys import STATUS_SHARDS
from stepwell.testing.account.cold_start import forget_process
from stepwell.testing.account.emulator import Emulator
from stepwell.testing.account.lambda_events import LambdaContext
from stepwell.testing.aws import AwsStepwell
from stepwell.testing.lambdas.host import LambdaHost
from tests.aws.permissions import Access, Account, Json

SERVICES = ("dynamodb", "sqs", "events", "lambda", "s3", "ssm", "logs", "ecs")
_KEY = re.compile(r"Credential=(?P<key>[^/]+)/\d{8}/[a-z0-9-]+/(?P<service>[a-z0-9-]+)/aws4_request")
_S3_OPERATIONS = {"GET": "GetObject", "PUT": "PutObject"}


def lambda_name(name: str) -> str:
    """The name of one of the engine's Lambdas in the emulated account."""
    return f"stepwell-{name.replace('_', '-')}"


class Recorder:
    """`accesses`: the requests by the name of the Lambda, or by the role for other callers."""

    def __init__(self, emulator: Emulator) -> None:
        self.account = Account(emulator.region, emulator.account)
        self.accesses: dict[str, set[Access]] = defaultdict(set)
        self.tasks: list[Json] = []  # requests of RunTask and answers, by ECS task
        self._emulator = emulator
        self._running: str | None = None

    def needs(self, who: str, service: str, operation: str, **parameters: Any) -> None:
        self.accesses[who] |= set(self.account.needs(service, operation, parameters))

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Records all requests of this process while a handler runs, and all requests of sandboxes."""
        for service in SERVICES:
            events = client(service).meta.events
            events.register("before-parameter-build", self._asked, unique_id="recorder")
            events.register("after-call", self._answered, unique_id="recorder-after")
        self._emulator.intercept("", self._from_sandbox)
        send, self._emulator.queues.send = self._emulator.queues.send, self._sent  # type: ignore[method-assign]
        self._send = send
        try:
            yield
        finally:
            self._emulator.queues.send = send  # type: ignore[method-assign]
            self._emulator.intercept("", lambda request: None)
            for service in SERVICES:
                events = client(service).meta.events
                events.unregister("before-parameter-build", unique_id="recorder")
                events.unregister("after-call", unique_id="recorder-after")

    @contextmanager
    def running(self, name: str, event: Any) -> Iterator[None]:
        """Runs a handler of one of the engine's Lambdas in this process. All threads of the handler end with it."""
        self._running = lambda_name(name)
        self._by_lambda_itself(self._running, event)
        try:
            yield
        finally:
            self._running = None

    def _by_lambda_itself(self, name: str, event: Any) -> None:
        """What Lambda does with the role of a function: it writes the log and polls the queue.

        https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
        """
        self.logs_of(name)
        if "Records" in event:
            queue = event["Records"][0]["eventSourceARN"]
            polls = ("ReceiveMessage", "DeleteMessage", "GetQueueAttributes")
            self.accesses[name] |= {Access(f"sqs:{poll}", queue) for poll in polls}

    def use_key(self, key: str) -> None:
        """All resources in the recorded requests are encrypted with this KMS key."""
        for accesses in self.accesses.values():
            accesses |= {needed for access in accesses for needed in self.account.needs_of_key(access, key)}

    def logs_of(self, name: str) -> None:
        for operation in ("CreateLogStream", "PutLogEvents"):
            self.needs(name, "logs", operation, logGroupName=f"/aws/lambda/{name}", logStreamName="2026/06/01/[1]a")

    # --- requests of this process ----------------------------------------------------------------------------------

    def _asked(self, params: Json, model: Any, context: Json, **_: Any) -> None:
        if self._running is None:
            return
        context["asked by"], context["asked with"] = self._running, dict(params)
        self.needs(self._running, model.service_model.service_name, model.name, **params)
        if model.name == "RunTask":
            definition = boto3.client("ecs").describe_task_definition(taskDefinition=params["taskDefinition"])
            roles = [definition["taskDefinition"][role] for role in ("taskRoleArn", "executionRoleArn")]
            passed = {self.account.passes(role, "ecs-tasks.amazonaws.com") for role in roles}
            self.accesses[self._running] |= passed

    def _answered(self, model: Any, parsed: Any, context: Json, **_: Any) -> None:
        who, asked = context.get("asked by"), context.get("asked with", {})
        if who is None:
            return
        if model.name == "RunTask":
            self.tasks += [{**task, "overrides": asked["overrides"]} for task in parsed["tasks"]]
        elif model.name == "GetObject" and parsed.get("Error", {}).get("Code") == "NoSuchKey":
            # a caller that may not list the bucket gets AccessDenied instead
            self.accesses[who].add(Access("s3:ListBucket", f"arn:aws:s3:::{asked['Bucket']}"))

    # --- requests of others ------------------------------------------------------------------------------------------

    def _from_sandbox(self, request: AWSPreparedRequest) -> None:
        """Sandboxes sign requests with the name of the function as the key."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        signed = _KEY.search(headers["authorization"])
        assert signed is not None
        if signed["service"] == "s3":
            bucket, _, key = unquote(urlsplit(request.url).path)[1:].partition("/")
            operation = _S3_OPERATIONS[request.method]
            self.needs(signed["key"], "s3", operation, Bucket=bucket, Key=key)
        else:
            operation = headers["x-amz-target"].rpartition(".")[2]
            self.needs(signed["key"], signed["service"], operation, **json.loads(request.body))

    def _sent(self, arn: str, body: str) -> None:
        """Records a message that an AWS service sends. Only Lambda's destinations use the role of the function."""
        context = json.loads(body).get("requestContext", {})
        if "functionArn" in context:
            name = context["functionArn"].split(":")[6]
            self.logs_of(name)
            self.accesses[name].add(Access("sqs:SendMessage", arn))
        self._send(arn, body)


class RecordedStepwell(AwsStepwell):
    """Runs each invocation of the engine's Lambdas in a new process, so nothing is shared in memory."""

    def __init__(
        self, recorder: Recorder, emulator: Emulator, host: LambdaHost, *, containers: bool, **settings: Any
    ) -> None:
        self.recorder = recorder
        super().__init__(emulator, host, **settings)
        self.host, self.emulator = host, emulator
        if containers:
            self.resources = _with_cluster(self.resources)
            os.environ[VARIABLE] = self.resources.to_json()
            self.cold_start()
            emulator.intercept("ecs.RegisterTaskDefinition", _with_memory)

    def cold_start(self) -> None:
        super().cold_start()
        self._handlers = {name: partial(self._invoke, name, item) for name, item in self._handlers.items()}

    def _invoke(self, name: str, handler: Callable[[Any, Any], Any], event: Any, context: LambdaContext) -> Any:
        forget_process()
        with self.recorder.running(name, event):
            return handler(event, context)

    def register(self, event: Json) -> None:
        """Calls the Lambda behind a custom resource in the same way as CloudFormation."""
        self._handlers["register"](event, LambdaContext("register"))

    def get(self, path: str) -> Json:
        return self._get(path)

    def sweep_after(self, minutes: int) -> None:
        """Runs a whole round of `tick` eight minutes later. Messages that it sends are not delivered yet."""
        self.emulator.advance(60_000 * minutes)
        for _ in range(STATUS_SHARDS):
            self.emulator.advance(60_000)
            self.tick()

    def lose_messages(self) -> None:
        """Deletes all messages in the queue of outcomes and timers."""
        boto3.client("sqs").purge_queue(QueueUrl=self.resources.outcomes_queue)

    # --- containers --------------------------------------------------------------------------------------------------

    def run_tasks(self) -> None:
        """Replaces Fargate: the adapter and the program of each new task run here, without a container."""
        while self.recorder.tasks:
            task = self.recorder.tasks.pop(0)
            definition = boto3.client("ecs").describe_task_definition(taskDefinition=task["taskDefinitionArn"])
            self._run_task(task, definition["taskDefinition"])
            self._stopped(task, exitCode=0)

    def end_task_without_a_word(self) -> None:
        """The container ends before the adapter has reported."""
        self._stopped(self.recorder.tasks.pop(0), exitCode=1)

    def _run_task(self, task: Json, definition: Json) -> None:
        (override,) = task["overrides"]["containerOverrides"]
        (container,) = [definition for definition in definition["containerDefinitions"] if definition["name"] == STEP]
        subprocess.run(
            [adapter.binary({"aarch64": "arm64"}.get(platform.machine(), platform.machine())), "exec", "--"]
            + container["command"],
            env={
                "PATH": os.environ["PATH"],
                "AWS_REGION": self.resources.region,
                "AWS_ACCESS_KEY_ID": definition["taskRoleArn"].rpartition("/")[2],
                "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_ENDPOINT_URL": self.emulator.endpoint.url,
                **{item["name"]: item["value"] for item in [*container["environment"], *override["environment"]]},
            },
            capture_output=True,
            check=True,
        )

    def _stopped(self, task: Json, **container: Any) -> None:
        """The event of ECS on the default bus, which a rule sends to the queue of outcomes."""
        detail = {
            "taskArn": task["taskArn"],
            "overrides": task["overrides"],
            "containers": [{"name": STEP, "lastStatus": "STOPPED", **container}],
            "lastStatus": "STOPPED",
            "stopCode": "EssentialContainerExited",
            "stoppedReason": "Essential container in task exited",
        }
        event = {"id": str(uuid.uuid4()), "detail-type": "ECS Task State Change", "source": "aws.ecs", "detail": detail}
        self.emulator.queues.send(self.resources.outcomes_queue_arn, json.dumps(event))


def _with_cluster(resources: Resources) -> Resources:
    cluster = boto3.client("ecs").create_cluster(clusterName="stepwell")["cluster"]
    subnet = boto3.client("ec2").describe_subnets()["Subnets"][0]["SubnetId"]
    return replace(
        resources,
        cluster=cluster["clusterArn"],
        subnets=(subnet,),
        security_groups=("sg-1",),
        execution_role=f"arn:aws:iam::{resources.account}:role/execution",
        adapter_images={"x86_64": "adapter"},
    )


def _with_memory(request: AWSPreparedRequest) -> None:
    """moto requires for each container what Fargate requires for the task."""
    definition = json.loads(request.body)
    for container in definition["containerDefinitions"]:
        container.setdefault("memoryReservation", 128)
    request.body = json.dumps(definition).encode()


def write(folder: Path, definition: Json, **files: str) -> Path:
    """Creates a function's folder. In file names `__` stands for `/`, and `_py` for the extension."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stepwell.json").write_text(json.dumps(definition))
    for name, content in files.items():
        path = folder / re.sub(r"_(py|sh|env)$", r".\1", name.replace("__", "/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder
