"""One task of the ECS host: runs the containers one after the other, and reports how the task ended.

A task ends once. If several reasons to end come together, the first one counts.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NO_LOG_GROUP = (
    "ResourceInitializationError: failed to validate logger args: create stream has been retried 1 times: failed to"
    " create Cloudwatch log stream: ResourceNotFoundException: The specified log group does not exist."
)
_NO_SECRET = (
    "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: unable"
    " to retrieve secrets from ssm: Invalid ssm parameters: {}"
)
_KILLED = 137
_NEVER_RAN = (125, 126, 127)  # exit codes of podman and docker: engine error, program not executable, not found
_GRACE_S = 1  # between SIGTERM and SIGKILL; 30 on Fargate


@dataclass(frozen=True, slots=True)
class End:
    """How a task ended. `reason`: what ECS reports for the container, empty if nothing."""

    stop_code: str
    stopped_reason: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Environment:
    """What a task gets from outside. `pull` raises CannotStart; `write_log` returns False if there is no such group."""

    engine: str
    variables: dict[str, str]  # set in every container
    secret: Callable[[str], str | None]
    pull: Callable[[str], None]
    write_log: Callable[[str, str, list[str] | None], bool]


class CannotStart(Exception):
    """A task cannot start. The message is the one of ECS."""


class _Stopped(Exception):
    """The task was stopped before the next container began."""


class Task:
    """`described`: the answer of RunTask with the overrides.

    `ended` is called with the `detail` of the task's event.
    """

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
        self._lock = threading.Lock()  # guards the two fields below
        self._end: End | None = None
        self._current: str | None = None  # the engine's name of the running container
        self._running = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"task {self._id}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join(60)

    @property
    def is_running(self) -> bool:
        """Whether the essential container runs, or is about to."""
        return self._running.is_set() and not self._over.is_set()

    def stop(self, end: End) -> None:
        """Stops the task as StopTask does: SIGTERM, then SIGKILL after the grace period."""
        self._signal(end, "TERM")
        if not self._over.wait(_GRACE_S):
            self.kill(end)

    def kill(self, end: End) -> None:
        self._signal(end, "KILL")

    def _signal(self, end: End, signal: str) -> None:
        """Sends a signal to the running container. If the container is about to start, waits and tries again."""
        with self._lock:
            self._end = self._end or end
        while (current := self._current) is not None and not self._over.is_set():
            command = [self._environment.engine, "kill", "--signal", signal, current]
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                return
            self._over.wait(0.02)

    # --- running the containers ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        definitions = self._definition["containerDefinitions"]
        first = [definition for definition in definitions if not definition.get("essential", True)]
        essential = [definition for definition in definitions if definition.get("essential", True)]
        end = End("EssentialContainerExited", "Essential container in task exited")
        try:
            with _volume() as folder:
                for definition in [*first, *essential]:
                    self._run_container(definition, folder)
        except CannotStart as reason:
            end = End("TaskFailedToStart", str(reason))
        except _Stopped:
            pass
        with self._lock:
            self._end = self._end or end
        self._over.set()
        self._ended(self._detail(self._end))

    def _run_container(self, definition: dict[str, Any], folder: str) -> None:
        is_essential = definition.get("essential", True)
        record = self._containers[definition["name"]] = {"name": definition["name"], "lastStatus": "STOPPED"}
        log = self._log_stream(definition)
        if not self._environment.write_log(*log, None):
            raise CannotStart(_NO_LOG_GROUP)
        with _reason_of(record):
            options = self._options(definition, folder)
            self._environment.pull(definition["image"])
            code, lines = self._execute(options, is_essential)
            self._environment.write_log(*log, lines)
            if code in _NEVER_RAN:
                raise CannotStart(f"CannotStartContainerError: {(lines or [''])[-1]}")
        record["exitCode"] = code
        if is_essential and self._end is not None and self._end.reason:
            record.update(exitCode=_KILLED, reason=self._end.reason)
        if not is_essential and code != 0 and self._end is None:
            raise CannotStart(f"dependency {record['name']} did not end with SUCCESS")

    def _execute(self, options: list[str], is_essential: bool) -> tuple[int, list[str]]:
        """Runs a container. Returns the exit code and the lines of output. Raises _Stopped."""
        container = f"ecs-{uuid.uuid4().hex}"
        with self._lock:
            if self._end is not None:
                raise _Stopped
            self._current = container
        process = subprocess.Popen(
            [self._environment.engine, "run", "--rm", "--log-driver", "none", "--name", container, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        if is_essential:
            self._running.set()
        try:
            with process:
                assert process.stdout is not None
                lines = [line.rstrip("\n") for line in process.stdout]
        finally:
            self._current = None
        return process.returncode, lines

    # --- arguments of the engine --------------------------------------------------------------------------------------

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
        variables = self._environment.variables | {
            item["name"]: item["value"] for item in definition.get("environment", ())
        }
        for secret in definition.get("secrets", ()):
            value = self._environment.secret(secret["valueFrom"])
            if value is None:
                raise CannotStart(_NO_SECRET.format(secret["valueFrom"]))
            variables[secret["name"]] = value
        for override in self._described["overrides"].get("containerOverrides", ()):
            if override["name"] == definition["name"]:
                variables |= {item["name"]: item["value"] for item in override.get("environment", ())}
        return variables

    def _log_stream(self, definition: dict[str, Any]) -> tuple[str, str]:
        options = definition["logConfiguration"]["options"]
        return options["awslogs-group"], f"{options['awslogs-stream-prefix']}/{definition['name']}/{self._id}"

    # --- the event ----------------------------------------------------------------------------------------------------

    def _detail(self, end: End) -> dict[str, Any]:
        containers = [
            self._containers.get(definition["name"], {"name": definition["name"], "lastStatus": "STOPPED"})
            for definition in self._definition["containerDefinitions"]
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
def _reason_of(record: dict[str, Any]) -> Iterator[None]:
    """Records the reason why a container did not start with the container too, as ECS does."""
    try:
        yield
    except CannotStart as reason:
        record["reason"] = str(reason)
        raise


@contextlib.contextmanager
def _volume() -> Iterator[str]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield folder
