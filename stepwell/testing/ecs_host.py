"""Stands in for ECS on Fargate in tests: what RunTask starts is run by podman or docker, and its end is told.

moto keeps clusters, task definitions and tasks; this host executes them, as far as our tasks go: one container that
ends before the other begins, a volume that both have, variables, secrets from SSM, logs to CloudWatch, credentials of
the task role. One rule: a container is really run, and what an event says of it is what happened to it.

It speaks HTTP, at `url`: ECS's API, the address at which containers get their credentials, and S3 for containers, which
reach no moto. Set AWS_ENDPOINT_URL_ECS to it.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from stepwell.testing.ecs_task import End, Environment, Task

Event = dict[str, Any]
MAX_OVERRIDES = 8192
_SPOT = End("SpotInterruption", "Your Spot Task was interrupted.")
_OUT_OF_MEMORY = End(
    "EssentialContainerExited",
    "Essential container in task exited",
    "OutOfMemoryError: Container killed due to memory usage",
)


class Refused(Exception):
    """An error that ECS answers with."""

    def __init__(self, code: str, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.body = {"__type": code, "message": message, **fields}


class EcsHost:
    """`emit` gets each task's event when it has stopped, as a rule on the default bus does. `engine`: podman or docker.

    Make it while moto is active, and before AWS_ENDPOINT_URL_ECS is set.
    """

    def __init__(self, engine: str, emit: Callable[[Event], None], region: str) -> None:
        import boto3
        from botocore.config import Config

        direct = Config(ignore_configured_endpoint_urls=True, retries={"total_max_attempts": 1})
        self._clients = {name: boto3.client(name, region, config=direct) for name in ("ecs", "s3", "ssm", "logs")}
        self._engine, self._emit, self._region = engine, emit, region
        self._lock = threading.RLock()
        self._tasks: dict[str, Task] = {}
        self._requests: dict[str, tuple[str, Any]] = {}  # by client token
        self._refusals: list[Refused | dict[str, Any]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"host": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        for task in list(self._tasks.values()):
            task.kill(End("UserInitiated", "the test is over"))
        self.wait()

    # --- what a test may ask for -------------------------------------------------------------------------------------

    def throttle(self) -> None:
        """The next RunTask is one too many."""
        self._refusals.append(Refused("ThrottlingException", "Rate exceeded"))

    def refuse(self, code: str, message: str) -> None:
        """The next RunTask raises this."""
        self._refusals.append(Refused(code, message))

    def forgive(self) -> None:
        """Start again what is asked for."""
        self._refusals.clear()

    def have_no_room(self) -> None:
        """The next RunTask finds no capacity."""
        reason = "Capacity is unavailable at this time. Please try again later or in a different availability zone"
        self._refusals.append({"tasks": [], "failures": [{"reason": reason}]})

    def interrupt(self) -> None:
        """Fargate takes back the spare capacity that running tasks have."""
        self._kill_all(_SPOT)

    def run_out_of_memory(self) -> None:
        """The kernel kills what runs in containers, for the memory it takes."""
        self._kill_all(_OUT_OF_MEMORY)

    def _kill_all(self, end: End) -> None:
        for task in list(self._tasks.values()):
            task.kill(end)

    @property
    def running(self) -> list[str]:
        """ARNs of the tasks whose container `step` runs."""
        return [arn for arn, task in list(self._tasks.items()) if task.is_running]

    @property
    def started(self) -> int:
        """How many tasks were ever started."""
        return len(self._tasks)

    def wait(self) -> None:
        """Wait until no task runs, and all events were emitted."""
        for task in list(self._tasks.values()):
            task.join()

    # --- the API -----------------------------------------------------------------------------------------------------

    def call(self, operation: str, body: dict[str, Any]) -> Any:
        """Raises Refused, ClientError."""
        with self._lock:
            match operation:
                case "run_task":
                    return self._run_task(body)
                case "stop_task":
                    return self._stop_task(body)
                case "list_tasks":  # moto lists stopped ones too
                    body.setdefault("desiredStatus", "RUNNING")
                case "register_task_definition":  # moto wants what Fargate does not need
                    for container in body["containerDefinitions"]:
                        container.setdefault("memoryReservation", 128)
            return getattr(self._clients["ecs"], operation)(**body)

    def _run_task(self, body: dict[str, Any]) -> Any:
        if self._refusals:
            refusal = self._refusals.pop(0)
            if isinstance(refusal, Refused):
                raise refusal
            return refusal
        if len(json.dumps(body.get("overrides", {}))) > MAX_OVERRIDES:
            raise Refused("InvalidParameterException", "Container Overrides length must be at most 8192")
        client_token = body.pop("clientToken", uuid.uuid4().hex)
        request = json.dumps(body, sort_keys=True)
        if client_token in self._requests:
            before, answer = self._requests[client_token]
            if before != request:
                arns = [task["taskArn"] for task in answer["tasks"]]
                raise Refused("ConflictException", "The client token was used for another request", resourceIds=arns)
            return answer
        answer = self._clients["ecs"].run_task(**body)
        self._requests[client_token] = (request, answer)
        for task in answer["tasks"]:
            self._start(task, body.get("overrides", {}))
        return answer

    def _start(self, described: dict[str, Any], overrides: dict[str, Any]) -> None:
        found = self._clients["ecs"].describe_task_definition(taskDefinition=described["taskDefinitionArn"])
        environment = Environment(self._engine, self.url, self._region, self._secret, self._write_log)
        described = {**described, "overrides": overrides}
        task = Task(described, found["taskDefinition"], environment, self._ended)
        self._tasks[described["taskArn"]] = task
        task.start()

    def _stop_task(self, body: dict[str, Any]) -> Any:
        arn = next((arn for arn in self._tasks if arn.endswith(body["task"].rpartition("/")[2])), None)
        if arn is None:
            raise Refused("InvalidParameterException", "The referenced task was not found.")
        end = End("UserInitiated", body.get("reason", "Task stopped by user"))
        threading.Thread(target=self._tasks[arn].stop, args=(end,), daemon=True).start()  # nobody waits for it
        return {"task": {"taskArn": arn}}

    def _ended(self, detail: dict[str, Any]) -> None:
        cluster, arn = detail["clusterArn"], detail["taskArn"]
        with self._lock:
            self._clients["ecs"].stop_task(cluster=cluster, task=arn, reason=detail["stoppedReason"])
        self._emit(
            {
                "version": "0",
                "id": str(uuid.uuid4()),
                "detail-type": "ECS Task State Change",
                "source": "aws.ecs",
                "account": arn.split(":")[4],
                "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "region": self._region,
                "resources": [arn],
                "detail": json.loads(json.dumps(detail, default=_time_as_text)),
            }
        )

    # --- what containers need ----------------------------------------------------------------------------------------

    def _secret(self, name: str) -> str | None:
        parameter = name.partition(":parameter")[2] or name
        with self._lock:
            found = self._clients["ssm"].get_parameters(Names=[parameter], WithDecryption=True)["Parameters"]
        return found[0]["Value"] if found else None

    def _write_log(self, group: str, stream: str, lines: list[str] | None) -> bool:
        """Make a stream, or append to it; False if there is no such group."""
        logs = self._clients["logs"]
        with self._lock:
            try:
                if lines is None:
                    logs.create_log_stream(logGroupName=group, logStreamName=stream)
                elif lines:
                    now = int(datetime.now(UTC).timestamp() * 1000)
                    events = [{"timestamp": now, "message": line} for line in lines]
                    logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)
            except logs.exceptions.ResourceNotFoundException:
                return False
        return True

    def get_object(self, bucket: str, key: str) -> bytes | None:
        s3 = self._clients["s3"]
        with self._lock:
            try:
                content: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
            except s3.exceptions.NoSuchKey:
                return None
        return content

    def put_object(self, bucket: str, key: str, content: bytes) -> None:
        with self._lock:
            self._clients["s3"].put_object(Bucket=bucket, Key=key, Body=content)


class _Handler(BaseHTTPRequestHandler):
    host: EcsHost
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet for an answer

    def do_POST(self) -> None:
        from botocore import xform_name
        from botocore.exceptions import ClientError

        operation = xform_name(self.headers["X-Amz-Target"].rpartition(".")[2])
        try:
            self._answer(200, self.host.call(operation, json.loads(self._body())))
        except Refused as refusal:
            self._answer(400, refusal.body)
        except ClientError as error:
            its = error.response["Error"]
            self._answer(400, {"__type": its["Code"], "message": its.get("Message", "")})

    def do_GET(self) -> None:
        if self.path == "/credentials":
            soon = datetime.now(UTC).replace(microsecond=0, year=datetime.now(UTC).year + 1).isoformat()
            self._answer(200, {"AccessKeyId": "task", "SecretAccessKey": "role", "Token": "token", "Expiration": soon})
            return
        if self._is_signed():
            content = self.host.get_object(*self._object())
            self._send(404 if content is None else 200, content or b"<Error><Code>NoSuchKey</Code></Error>")

    def do_PUT(self) -> None:
        content = self._body()
        if self._is_signed():
            self.host.put_object(*self._object(), content)
            self._send(200, b"")

    def _is_signed(self) -> bool:
        """S3 answers nobody who shows no credentials."""
        signed = self.headers.get("Authorization", "").startswith("AWS4-HMAC-SHA256 Credential=task/")
        if not signed:
            self._send(403, b"<Error><Code>AccessDenied</Code></Error>")
        return signed

    def _object(self) -> tuple[str, str]:
        bucket, _, key = unquote(urlsplit(self.path).path)[1:].partition("/")
        return bucket, key

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, status: int, body: Any) -> None:
        self._send(status, json.dumps(body, default=_time_as_number).encode())

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None: ...


def _time_as_number(value: Any) -> float:
    return float(value.timestamp())


def _time_as_text(value: Any) -> str:
    return str(value.isoformat())
