"""One task of the ECS host: its containers, one after the other, and how it ended.

One rule: a task ends once, for the first reason that it had.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NO_LOG_GROUP = (
    "ResourceInitializationError: failed to validate logger args: create stream has been retried 1 times: failed to"
    " create Cloudwatch log stream: ResourceNotFoundException: The specified log group does not exist."
)
_KILLED = 137
_GRACE_S = 1  # between SIGTERM and SIGKILL; 30 on Fargate


@dataclass(frozen=True, slots=True)
class End:
    """`reason`: what ECS says of the container, if it says anything."""

    stop_code: str
    stopped_reason: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Environment:
    engine: str
    url: str  # of the host
    region: str
    secret: Callable[[str], str | None]
    write_log: Callable[[str, str, list[str] | None], bool]


class CannotStart(Exception):
    """In ECS's words."""


class Task:
    """`described`: as RunTask answered, with its overrides. `ended` gets what the event says of it."""

    def __init__(
        self,
        described: dict[str, Any],
        definition: dict[str, Any],
        environment: Environment,
        ended: Callable[[dict[str, Any]], None],
    ) -> None:
        self._described, self._definition, self._environment, self._ended = described, definition, environment, ended
        self._id: str = described["taskArn"].rpartition("/")[2]
        self._containers: dict[str, dict[str, Any]] = {}
        self._end: End | None = None
        self._current: str | None = None  # the name that the engine knows the running container by
        self._running = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"task {self._id}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join(60)

    @property
    def is_running(self) -> bool:
        return self._running.is_set() and not self._over.is_set()

    def stop(self, end: End) -> None:
        """As StopTask does: SIGTERM, and SIGKILL to what is still there then."""
        self._signal(end, "TERM")
        if not self._over.wait(_GRACE_S):
            self.kill(end)

    def kill(self, end: End) -> None:
        self._signal(end, "KILL")

    def _signal(self, end: End, signal: str) -> None:
        """Send a signal to the container that runs, also if it is only about to."""
        if not self._over.is_set():
            self._end = self._end or end
        while (current := self._current) is not None and not self._over.is_set():
            if self._engine(["kill", "--signal", signal, current]).returncode == 0:
                return
            self._over.wait(0.05)

    # --- its life ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        definitions = self._definition["containerDefinitions"]
        first = [its for its in definitions if not its.get("essential", True)]
        essential = [its for its in definitions if its.get("essential", True)]
        end = End("EssentialContainerExited", "Essential container in task exited")
        try:
            with _volume() as folder:
                for definition in [*first, *essential]:
                    if self._end is None:
                        self._run_container(definition, folder)
        except CannotStart as reason:
            end = End("TaskFailedToStart", str(reason))
        self._over.set()
        self._ended(self._detail(self._end or end))

    def _run_container(self, definition: dict[str, Any], folder: str) -> None:
        name, record = definition["name"], {"name": definition["name"], "lastStatus": "STOPPED"}
        self._containers[name] = record
        group, stream = self._log_stream(definition)
        if not self._environment.write_log(group, stream, None):
            raise CannotStart(_NO_LOG_GROUP)
        container = f"ecs-{uuid.uuid4().hex}"
        made = self._engine(["create", "--name", container, *self._options(definition, folder)])
        if made.returncode != 0:
            record["reason"] = f"CannotPullContainerError: {_last_line(made.stderr)}"
            raise CannotStart(record["reason"])
        self._current = container
        try:
            if self._end is None:
                self._attach(definition, container, record, (group, stream))
        finally:
            self._current = None
            self._engine(["rm", "-f", container])

    def _attach(self, definition: dict[str, Any], container: str, record: dict[str, Any], log: tuple[str, str]) -> None:
        process = subprocess.Popen(
            [self._environment.engine, "start", "--attach", container],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert process.stdout is not None
        if definition.get("essential", True):
            self._running.set()
        with process:
            lines = []
            for line in process.stdout:
                lines.append(line.rstrip("\n"))
        self._environment.write_log(*log, lines)
        state = json.loads(self._engine(["container", "inspect", container]).stdout)[0]["State"]
        if state.get("Error") or (not state.get("Pid", 0) and state["Status"] in ("created", "initialized")):
            record["reason"] = f"CannotStartContainerError: {state.get('Error') or (lines or [''])[-1]}"
            raise CannotStart(record["reason"])
        record["exitCode"] = state["ExitCode"]
        if definition.get("essential", True) and self._end is not None and self._end.reason:
            record.update(exitCode=_KILLED, reason=self._end.reason)
        if not definition.get("essential", True) and record["exitCode"] != 0:
            raise CannotStart(f"dependency {record['name']} did not end with SUCCESS")

    # --- what the engine is told -------------------------------------------------------------------------------------

    def _options(self, definition: dict[str, Any], folder: str) -> list[str]:
        options = ["--network", "host"]
        for mount in definition.get("mountPoints", ()):
            options += ["-v", f"{folder}:{mount['containerPath']}"]
        for name, value in self._variables(definition).items():
            options += ["-e", f"{name}={value}"]
        words = list(definition.get("command", ()))
        entrypoint = definition.get("entryPoint")
        if entrypoint:
            options += ["--entrypoint", entrypoint[0]]
            words = [*entrypoint[1:], *words]
        return [*options, definition["image"], *words]

    def _variables(self, definition: dict[str, Any]) -> dict[str, str]:
        url = self._environment.url
        variables = {
            "AWS_REGION": self._environment.region,
            "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE",
            # On AWS it is AWS_CONTAINER_CREDENTIALS_RELATIVE_URI, at an address that only ECS has.
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{url}/credentials",
            "AWS_ENDPOINT_URL_S3": url,
        }
        variables |= {its["name"]: its["value"] for its in definition.get("environment", ())}
        for secret in definition.get("secrets", ()):
            value = self._environment.secret(secret["valueFrom"])
            if value is None:
                raise CannotStart(
                    "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval"
                    f" failed: unable to retrieve secrets from ssm: Invalid ssm parameters: {secret['valueFrom']}"
                )
            variables[secret["name"]] = value
        for override in self._described["overrides"].get("containerOverrides", ()):
            if override["name"] == definition["name"]:
                variables |= {its["name"]: its["value"] for its in override.get("environment", ())}
        return variables

    def _log_stream(self, definition: dict[str, Any]) -> tuple[str, str]:
        options = definition["logConfiguration"]["options"]
        return options["awslogs-group"], f"{options['awslogs-stream-prefix']}/{definition['name']}/{self._id}"

    def _engine(self, words: list[str]) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [self._environment.engine, *words], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )

    # --- what the event says -----------------------------------------------------------------------------------------

    def _detail(self, end: End) -> dict[str, Any]:
        containers = [
            self._containers.get(its["name"], {"name": its["name"], "lastStatus": "STOPPED"})
            for its in self._definition["containerDefinitions"]
        ]
        return {
            **{name: value for name, value in self._described.items() if name not in ("attachments", "tags")},
            "containers": containers,
            "cpu": self._definition.get("cpu", ""),
            "memory": self._definition.get("memory", ""),
            "desiredStatus": "STOPPED",
            "lastStatus": "STOPPED",
            "stopCode": end.stop_code,
            "stoppedReason": end.stopped_reason,
        }


@contextlib.contextmanager
def _volume() -> Any:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield folder


def _last_line(text: bytes) -> str:
    return text.decode(errors="replace").strip().rpartition("\n")[2]
