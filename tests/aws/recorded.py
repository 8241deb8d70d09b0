"""The AWS platform, with every request to AWS written down under the Lambda that made it, as IAM would see it."""

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
    """What the emulated account calls one of the engine's Lambdas."""
    return f"stepwell-{name.replace('_', '-')}"


class Recorder:
    """`accesses`: what was asked for, by the name of the Lambda, or of the role for what is no Lambda."""

    def __init__(self, emulator: Emulator) -> None:
        self.account = Account(emulator.region, emulator.account)
        self.accesses: dict[str, set[Access]] = defaultdict(set)
        self.tasks: list[Json] = []  # of ECS, as RunTask was asked for and answered
        self._emulator = emulator
        self._running: str | None = None

    def needs(self, who: str, service: str, operation: str, **parameters: Any) -> None:
        self.accesses[who] |= set(self.account.needs(service, operation, parameters))

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Everything that this process's clients ask for while a handler runs, and what sandboxes ask for."""
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
        """A handler of one of the engine's Lambdas, in this process; all of its threads end with it."""
        self._running = lambda_name(name)
        self._by_lambda_itself(self._running, event)
        try:
            yield
        finally:
            self._running = None

    def _by_lambda_itself(self, name: str, event: Any) -> None:
        """What Lambda does with a function's role: it writes its log, and polls its queue.

        https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
        """
        self.logs_of(name)
        if "Records" in event:
            queue = event["Records"][0]["eventSourceARN"]
            polls = ("ReceiveMessage", "DeleteMessage", "GetQueueAttributes")
            self.accesses[name] |= {Access(f"sqs:{poll}", queue) for poll in polls}

    def use_key(self, key: str) -> None:
        """All that was asked for is encrypted with this KMS key."""
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
            # Who may not list the bucket is told AccessDenied instead.
            self.accesses[who].add(Access("s3:ListBucket", f"arn:aws:s3:::{asked['Bucket']}"))

    # --- requests of others ------------------------------------------------------------------------------------------

    def _from_sandbox(self, request: AWSPreparedRequest) -> None:
        """Sandboxes sign with the function's name as their key."""
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
        """A service of AWS sends a message: of those, Lambda uses the function's role for its destinations."""
        context = json.loads(body).get("requestContext", {})
        if "functionArn" in context:
            name = context["functionArn"].split(":")[6]
            self.logs_of(name)
            self.accesses[name].add(Access("sqs:SendMessage", arn))
        self._send(arn, body)


class RecordedStepwell(AwsStepwell):
    """Every invocation of an engine's Lambda is a new process: what one has in its memory, no other has."""

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
        """As CloudFormation calls the Lambda behind a custom resource."""
        self._handlers["register"](event, LambdaContext("register"))

    def get(self, path: str) -> Json:
        return self._get(path)

    def sweep_after(self, minutes: int) -> None:
        """Minutes later `tick` goes round once, as it does every eight; nothing that it sends is delivered yet."""
        self.emulator.advance(60_000 * minutes)
        for _ in range(STATUS_SHARDS):
            self.emulator.advance(60_000)
            self.tick()

    def lose_messages(self) -> None:
        """What stands in the queue of outcomes and timers is gone."""
        boto3.client("sqs").purge_queue(QueueUrl=self.resources.outcomes_queue)

    # --- containers --------------------------------------------------------------------------------------------------

    def run_tasks(self) -> None:
        """Stands in for Fargate: the adapter and the program of each new task run here, without their container."""
        while self.recorder.tasks:
            task = self.recorder.tasks.pop(0)
            definition = boto3.client("ecs").describe_task_definition(taskDefinition=task["taskDefinitionArn"])
            self._run_task(task, definition["taskDefinition"])
            self._stopped(task, exitCode=0)

    def end_task_without_a_word(self) -> None:
        """Its container ends before the adapter has reported."""
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
        """What ECS says on the default bus, and a rule there hands to the queue of outcomes."""
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
    """moto wants to know for each container what Fargate wants to know for the task."""
    definition = json.loads(request.body)
    for container in definition["containerDefinitions"]:
        container.setdefault("memoryReservation", 128)
    request.body = json.dumps(definition).encode()


def write(folder: Path, definition: Json, **files: str) -> Path:
    """A function's folder; names of files: `__` stands for `/`, `_py` and the like for the extension."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stepwell.json").write_text(json.dumps(definition))
    for name, content in files.items():
        path = folder / re.sub(r"_(py|sh|env)$", r".\1", name.replace("__", "/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder
