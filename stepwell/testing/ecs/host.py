"""Replaces ECS on Fargate in tests: podman or docker runs the tasks of RunTask, and their ends are reported as events.

moto stores clusters, task definitions and tasks; this host executes them, as far as Stepwell's tasks need it. It pulls
images, runs one container before the other, shares a volume, and sets variables and secrets from SSM. It writes logs to
CloudWatch, and serves credentials of the task role. Containers are really run, and events report how they ended.
"""

from __future__ import annotations

import json
import subprocess
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from moto.ec2.models import ec2_backends
from moto.ecs.models import ecs_backends

from stepwell.aws.clients import client
from stepwell.aws.deploy.oci import Reference, is_on_this_machine
from stepwell.testing.account.emulator import Emulator, answer
from stepwell.testing.ecs.task import CannotStart, End, Environment, Task

Event = dict[str, Any]
MAX_OVERRIDES = 8192
_SPOT = End("SpotInterruption", "Your Spot Task was interrupted.")
_OUT_OF_MEMORY = End(
    "EssentialContainerExited",
    "Essential container in task exited",
    "OutOfMemoryError: Container killed due to memory usage",
)


class EcsError(Exception):
    """An error with which ECS answers a request."""

    def __init__(self, code: str, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.body = {"__type": code, "message": message, **fields}


class EcsHost:
    """Use it inside an `Emulator`.

    `engine` returns the path of podman or docker. `emit` is called with the event of each task that has stopped, as a
    rule on the default bus delivers it.
    """

    def __init__(self, emulator: Emulator, engine: Callable[[], str], emit: Callable[[Event], None]) -> None:
        self._emulator, self._engine, self._emit = emulator, engine, emit
        self._lock = threading.RLock()
        self._change = threading.Condition()
        self._tasks: dict[str, Task] = {}
        self._ended = self._reported = 0  # tasks that have ended; of these, tasks that `wait_any` has reported
        self._hides_tasks = False
        self._requests: dict[str, tuple[str, AWSResponse]] = {}  # by client token
        self._refusals: list[EcsError | str] = []  # an error, or as text the reason of a capacity failure
        self._pulled: set[str] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Credentials)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        for operation in ("RunTask", "StopTask", "ListTasks", "RegisterTaskDefinition"):
            emulator.intercept(f"ecs.{operation}", self._take)

    def close(self) -> None:
        self.reset()
        self._server.shutdown()
        self._server.server_close()

    def reset(self) -> None:
        """Forgets all tasks, for an account that is empty now. Running tasks are killed without events; images stay."""
        emit, self._emit = self._emit, lambda event: None
        for task in list(self._tasks.values()):
            task.kill(End("UserInitiated", "the test is over"))
        self.wait()
        self._emit = emit
        self._tasks.clear()
        self._requests.clear()
        self._refusals.clear()
        self._hides_tasks = False
        self._ended = self._reported = 0

    # --- faults, and waiting ------------------------------------------------------------------------------------------

    def refuse(self, code: str, message: str) -> None:
        """Makes the next RunTask fail with this error."""
        self._refusals.append(EcsError(code, message))

    def have_no_room(self) -> None:
        """Makes the next RunTask find no capacity, which ECS reports in an answer with status 200."""
        reason = "Capacity is unavailable at this time. Please try again later or in a different availability zone"
        self._refusals.append(reason)

    def hide_tasks(self) -> None:
        """Makes the next ListTasks return no tasks: ECS documents that lists are eventually consistent."""
        self._hides_tasks = True

    def interrupt(self) -> None:
        """Stops the running tasks as Fargate does when it reclaims spot capacity."""
        self._for_all(lambda task: task.stop(_SPOT))

    def run_out_of_memory(self) -> None:
        """Kills the running containers as the kernel does when they use too much memory."""
        self._for_all(lambda task: task.kill(_OUT_OF_MEMORY))

    def _for_all(self, do: Callable[[Task], None]) -> None:
        for task in list(self._tasks.values()):
            do(task)

    @property
    def running(self) -> list[str]:
        """ARNs of the tasks whose container `step` is running."""
        return [arn for arn, task in list(self._tasks.items()) if task.is_running]

    @property
    def started(self) -> int:
        """How many tasks were started in total."""
        return len(self._tasks)

    def wait(self) -> None:
        """Waits until no task runs, and all events were emitted."""
        for task in list(self._tasks.values()):
            task.join()

    def wait_any(self, timeout_s: float) -> bool:
        """Waits until another task has ended and its event was emitted; False on timeout, or if no task runs."""
        with self._change:
            self._change.wait_for(lambda: self._ended != self._reported or self._ended == len(self._tasks), timeout_s)
            has_ended, self._reported = self._ended != self._reported, self._ended
        return has_ended

    # --- the API -----------------------------------------------------------------------------------------------------

    def _take(self, request: AWSPreparedRequest) -> AWSResponse:
        operation = _header(request, "X-Amz-Target").rpartition(".")[2]
        body = json.loads(request.body)
        try:
            with self._lock:
                return self._call(operation, request, body)
        except EcsError as refused:
            return answer(request, 400, json.dumps(refused.body).encode())

    def _call(self, operation: str, request: AWSPreparedRequest, body: dict[str, Any]) -> AWSResponse:
        match operation:
            case "RunTask":
                return self._run_task(request, body)
            case "StopTask":
                return self._stop_task(request, body)
            case "ListTasks":
                if self._hides_tasks:
                    self._hides_tasks = False
                    return answer(request, 200, b'{"taskArns": []}')
                body.setdefault("desiredStatus", "RUNNING")  # the default of ECS; moto also lists stopped tasks
            case "RegisterTaskDefinition":  # moto requires a field that Fargate does not
                for container in body["containerDefinitions"]:
                    container.setdefault("memoryReservation", 128)
        return self._moto(request, body)

    def _run_task(self, request: AWSPreparedRequest, body: dict[str, Any]) -> AWSResponse:
        if self._refusals:
            refusal = self._refusals.pop(0)
            if isinstance(refusal, EcsError):
                raise refusal
            return answer(request, 200, json.dumps({"tasks": [], "failures": [{"reason": refusal}]}).encode())
        if len(json.dumps(body.get("overrides", {}))) > MAX_OVERRIDES:
            raise EcsError("InvalidParameterException", "Container Overrides length must be at most 8192")
        content = json.dumps(body, sort_keys=True)
        before = self._requests.get(body["clientToken"])
        if before is not None:
            if before[0] != content:
                arns = [task["taskArn"] for task in json.loads(before[1].content)["tasks"]]
                raise EcsError("ConflictException", "The client token was used for another request", resourceIds=arns)
            return before[1]
        body["networkConfiguration"]["awsvpcConfiguration"]["subnets"] = [self._subnet]  # moto requires an existing one
        response = self._moto(request, body)
        for task in json.loads(response.content)["tasks"]:
            self._start(task, body.get("overrides", {}))
        self._requests[body["clientToken"]] = (content, response)
        return response

    def _start(self, described: dict[str, Any], overrides: dict[str, Any]) -> None:
        arn = described["taskArn"]
        found = client("ecs").describe_task_definition(taskDefinition=described["taskDefinitionArn"])
        self._tasks[arn] = Task({**described, "overrides": overrides}, found["taskDefinition"], self._place, self._over)
        self._tasks[arn].start()

    def _stop_task(self, request: AWSPreparedRequest, body: dict[str, Any]) -> AWSResponse:
        arn = next((arn for arn in self._tasks if arn.endswith(body["task"].rpartition("/")[2])), None)
        if arn is None:
            raise EcsError("InvalidParameterException", "The referenced task was not found.")
        end = End("UserInitiated", body.get("reason", "Task stopped by user"))
        threading.Thread(target=self._tasks[arn].stop, args=(end,), daemon=True).start()  # StopTask does not wait
        return answer(request, 200, json.dumps({"task": {"taskArn": arn}}).encode())

    def _over(self, detail: dict[str, Any]) -> None:
        with self._emulator.lock:
            backend = ecs_backends[self._emulator.account][self._emulator.region]
            backend.stop_task(detail["clusterArn"], detail["taskArn"], detail["stoppedReason"])
        self._emit(
            {
                "version": "0",
                "id": str(uuid.uuid4()),
                "detail-type": "ECS Task State Change",
                "source": "aws.ecs",
                "account": self._emulator.account,
                "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "region": self._emulator.region,
                "resources": [detail["taskArn"]],
                "detail": detail,
            }
        )
        with self._change:
            self._ended += 1
            self._change.notify_all()

    def _moto(self, request: AWSPreparedRequest, body: dict[str, Any]) -> AWSResponse:
        changed = AWSPreparedRequest(request.method, request.url, request.headers, json.dumps(body).encode(), False)
        response = self._emulator.request("", changed)
        assert response is not None
        return response

    @property
    def _subnet(self) -> str:
        with self._emulator.lock:
            found: str = ec2_backends[self._emulator.account][self._emulator.region].describe_subnets()[0].id
        return found

    # --- the environment of containers --------------------------------------------------------------------------------

    @property
    def _place(self) -> Environment:
        variables = {
            "AWS_REGION": self._emulator.region,
            "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE",
            # On AWS it is AWS_CONTAINER_CREDENTIALS_RELATIVE_URI, with an address that exists only on ECS.
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{self._server.server_port}/",
            "AWS_ENDPOINT_URL_S3": self._emulator.endpoint.url,
        }
        return Environment(self._engine(), variables, _secret, self._pull, _write_log)

    def _pull(self, image: str) -> None:
        """Pulls an image, unless it was pulled before. Raises CannotStart."""
        if image in self._pulled:
            return
        local = is_on_this_machine(Reference.parse(image).host)
        # docker assumes plain HTTP for a registry on this machine; podman must be told
        insecure = ["--tls-verify=false"] if local and Path(self._engine()).name == "podman" else []
        command = [self._engine(), "pull", "--quiet", *insecure, image]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode != 0:
            text = done.stderr.strip().rpartition("\n")[2]
            raise CannotStart(f"CannotPullContainerError: pull image manifest has been retried 1 time(s): {text}")
        self._pulled.add(image)


class _Credentials(BaseHTTPRequestHandler):
    """Serves the credentials of a task role."""

    def do_GET(self) -> None:
        soon = (datetime.now(UTC) + timedelta(days=365)).replace(microsecond=0).isoformat()
        content = json.dumps(
            {"AccessKeyId": "task", "SecretAccessKey": "role", "Token": "token", "Expiration": soon}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None: ...


def _secret(name: str) -> str | None:
    parameter = name.partition(":parameter")[2] or name
    found = client("ssm").get_parameters(Names=[parameter], WithDecryption=True)["Parameters"]
    return found[0]["Value"] if found else None


def _write_log(group: str, stream: str, lines: list[str] | None) -> bool:
    """Creates a log stream (`lines` None), or appends to it. Returns False if the group does not exist."""
    logs = client("logs")
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


def _header(request: AWSPreparedRequest, name: str) -> str:
    value: Any = request.headers.get(name, "")
    return value.decode() if isinstance(value, bytes) else str(value)
