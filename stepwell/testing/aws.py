"""Stepwell on AWS for tests: every handler through the real entry point, on moto, and steps on the real Runtime API.

Messages are delivered in the test's own thread, one batch after the other. The clock stands still until `travel`.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

import orjson

from stepwell.api.access import KeyScope
from stepwell.aws import clients
from stepwell.aws.api.keys import KeyStore
from stepwell.aws.deploy.wanted import Wanted
from stepwell.aws.engine.scheduler import scheduler
from stepwell.aws.naming import secret_parameter
from stepwell.aws.resources import VARIABLE, Resources
from stepwell.aws.table import positions
from stepwell.aws.table.keys import STATUS_SHARDS
from stepwell.aws.topology import EVENTS, FUNCTIONS, OUTCOMES, EngineInvocation, server
from stepwell.core.duration import parse_duration
from stepwell.core.routing.versions import NotPossible, Release
from stepwell.testing.account.cold_start import forget_process
from stepwell.testing.account.emulator import Emulator
from stepwell.testing.account.environment import provision
from stepwell.testing.account.lambda_events import LambdaContext, http_event, scheduled_event
from stepwell.testing.account.pollers import Pollers
from stepwell.testing.account.timers import AccountTimers
from stepwell.testing.account.unkindness import CALLER, Unkindness
from stepwell.testing.decisions import Decisions
from stepwell.testing.lambdas.host import LambdaHost
from stepwell.testing.platform import PATIENCE_S, Answer, Json, Refused
from stepwell.testing.projects import Project, project_at
from stepwell.testing.pushing import push_project

# The handlers that are called in this process.
HANDLERS = tuple(function.name for function in FUNCTIONS if not isinstance(function.trigger, EngineInvocation))


class AwsStepwell(Decisions):
    """Implements `platform.Stepwell` in an empty account. `emulator` and `host` can be reused, by one object at a time.
    `unkindness`: the faults that the account injects; None injects no faults."""

    name = "aws"
    parallelism = 4  # steps that a test may run at a time without reaching Lambda's concurrency

    def __init__(
        self, emulator: Emulator, host: LambdaHost, *, unkindness: Unkindness | None = None, **settings: Any
    ) -> None:
        self._emulator, self._host = emulator, host
        host.reset()
        emulator.unkindness = self._unkindness = unkindness
        name = f"{type(self).__module__}.{type(self).__name__} with {settings}"
        self.resources, self._key = emulator.begin(name, lambda: self._make(settings))
        self._due = AccountTimers(emulator, self.resources)
        positions.reset()  # the clock was set back
        os.environ[VARIABLE] = self.resources.to_json()
        self.cold_start()

    def _make(self, settings: Mapping[str, Any]) -> tuple[Resources, str]:
        """Creates an environment in an empty account, and an API key. Made once in a process, then copied."""
        resources = provision(self._emulator.region, self._emulator.account, **settings)
        return resources, KeyStore(resources).create(KeyScope.MANAGE, "tests", self._emulator.now)[1]

    def close(self) -> None:
        """Ends all steps. Raises AssertionError if outcomes were lost, unless the test asked for the loss."""
        self._host.restart()
        self._emulator.unkindness = None
        os.environ.pop(VARIABLE, None)
        lost = self._host.take_undelivered()
        assert not lost, f"Lambda could not deliver the records of steps' outcomes to their destinations: {lost}"

    def cold_start(self) -> None:
        """Starts new processes of all Lambdas, with nothing in memory."""
        forget_process()
        for name in HANDLERS:
            sys.modules.pop(f"stepwell.aws.lambdas.{name}", None)
        self._handlers = {name: importlib.import_module(f"stepwell.aws.lambdas.{name}").handler for name in HANDLERS}
        self._pollers = Pollers(self._emulator, self.resources, lambda name: self._handlers[name], self._unkindness)

    def _as_caller(self) -> AbstractContextManager[None]:
        """Marks requests to AWS as made by a caller who waits for the answer, such as the API or a push."""
        return nullcontext() if self._unkindness is None else self._unkindness.acting(CALLER)

    # --- functions and events --------------------------------------------------------------------------------------

    def deploy(self, path: Path | str) -> Any:
        project = project_at(path)
        with self._as_caller():
            return project.answer(self._push(project, Release()))

    def push(
        self,
        path: Path | str,
        *,
        canary: float | None = None,
        sticky: str | None = None,
        guard: bool = False,
        message: str = "",
    ) -> Json:
        """Pushes a function as `stepwell push` does. Returns the version and the routing."""
        release = Release(message=message, weight=canary, sticky=sticky, guarded=guard)
        try:
            release.check()
        except NotPossible as reason:
            raise Refused(409, [{"pointer": "", "message": str(reason)}]) from None
        with self._as_caller():
            ((function_id, version),) = self._push(project_at(path), release).items()
        return {"version": version, "routing": self._get(f"/v1/functions/{function_id}/routing")}

    def _push(self, project: Project, release: Release) -> dict[str, int]:
        pushed = push_project(self.resources, self._emulator, project, release, self._prepare)
        if pushed.is_partly_old:
            self.cold_start()  # a warm Lambda caches for a minute what executes the steps of a version
        return pushed.live

    def _prepare(self, wanted: Sequence[Wanted]) -> None:
        """Makes what must exist before these functions are pushed. Raises Refused."""

    def send(self, name: str = "go", data: Json | None = None, user: Json | None = None, **envelope: Any) -> str:
        event = {"name": name, "data": data or {}, "user": user or {}, **envelope}
        return self.send_raw(orjson.dumps(event))[0]

    def send_raw(self, body: bytes) -> list[str]:
        answer = self._call("POST", "/e", body)
        self._pollers.drain(EVENTS)
        ids: list[str] = answer["ids"]
        return ids

    def http(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        answer = self._request(method, path, body, headers or {})
        if server(method, path.partition("?")[0]).name == "ingest":
            self._pollers.drain(EVENTS)
        return answer

    def api(self, method: str, path: str, body: Any = None) -> Any:
        content = b"" if body is None else orjson.dumps(body)
        return self.http(method, path, content, {"content-type": "application/json"}).json()

    def event(self, event_id: str) -> Json:
        self._settle_to_show()
        (event,) = self._get(f"/v1/events?id={quote(event_id, safe='')}")["data"]
        found: Json = event
        return found

    def events(self, name: str | None = None) -> list[Json]:
        self._settle_to_show()
        query = f"name={quote(name)}&" if name else ""
        return self._all(f"/v1/events?{query}")

    def runs(self, event_id: str | None = None) -> list[Json]:
        self._settle_to_show()
        of = "" if event_id is None else f"event={quote(event_id, safe='')}"
        return [self.peek(run["id"]) for run in self._all(f"/v1/runs?{of}&")]

    def run_of(self, event_id: str) -> str:
        """The id of the event's only run, without settling first."""
        (run,) = self._all(f"/v1/runs?event={quote(event_id, safe='')}&")
        run_id: str = run["id"]
        return run_id

    def run(self, run_id: str) -> Json:
        self._settle_to_show()
        return self.peek(run_id)

    def peek(self, run_id: str) -> Json:
        return self._get(f"/v1/runs/{run_id}")

    def wait(self, run_id: str, until: Callable[[Json], bool]) -> Json:
        deadline = time.monotonic() + PATIENCE_S
        while not until(run := self.peek(run_id)):
            assert time.monotonic() < deadline, f"the condition was never met: {json.dumps(run, indent=1)}"
            if not self._pollers.deliver():
                self._host.wait_any(0.01)
        return run

    def cancel(self, run_id: str) -> None:
        try:
            self._call("DELETE", f"/v1/runs/{run_id}")
        except Refused as refused:
            if refused.status != 409:  # it has ended
                raise

    def rerun(self, run_id: str) -> str | None:
        try:
            new_id: str = self._call("POST", f"/v1/runs/{run_id}/rerun")["id"]
        except Refused as refused:
            if refused.status == 409:
                return None
            raise
        return new_id

    def secret(self, name: str, value: str) -> None:
        clients.client("ssm").put_parameter(
            Name=secret_parameter(self.resources.env, name), Value=value, Type="SecureString", Overwrite=True
        )

    # --- time ------------------------------------------------------------------------------------------------------

    def _settle(self, within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            is_idle = self._host.is_idle  # read first: an invocation that ends after this has queued an outcome
            if not self._pollers.deliver():
                if is_idle or (not self._host.wait_any(0.05) and self._waits_in_vain()):
                    return True
        return False

    def _running(self) -> frozenset[Hashable]:
        return frozenset(self._host.outstanding)

    def _waits_in_vain(self) -> bool:
        """Whether all running steps belong to cancelled runs. Lambda cannot stop them before their timeout."""
        payloads = [orjson.loads(payload) for payload in self._host.outstanding]
        runs = {(payload.get("input") or payload)["ctx"]["run_id"] for payload in payloads}
        return bool(runs) and all(self.peek(run_id)["status"] == "cancelled" for run_id in runs)

    def travel(self, duration: str) -> None:
        target = self._emulator.now + parse_duration(duration)
        self.settle()
        while (due := self._due.next_due()) is not None and due <= target:
            self._emulator.advance(max(0, due - self._emulator.now))
            self._tick_if_due()
            self.settle()
        self._emulator.advance(target - self._emulator.now)
        self._tick_if_due()
        self.settle()

    def restart(self, downtime: str = "0s") -> None:
        """Restarts all Lambdas. Running steps are lost without an outcome, and the sweeper closes their attempts."""
        self._host.restart()
        self.cold_start()
        self._emulator.advance(parse_duration(downtime))
        self.sweep(silence_ms=0)
        self._tick_if_due()
        self._pollers.deliver()

    def sweep(self, silence_ms: int | None = None) -> None:
        """Runs all rounds of the sweeper at once. `silence_ms`: after how long a silent attempt counts as lost."""
        with self._as_caller():
            scheduler().sweep(range(STATUS_SHARDS), silence_ms)
        self._pollers.drain(OUTCOMES)

    def tick(self) -> None:
        """Calls the handler that EventBridge calls every minute."""
        with self._as_caller():
            self._handlers["tick"](scheduled_event(), LambdaContext("tick"))

    def _tick_if_due(self) -> None:
        due = self._due.next_tick()
        if due is not None and due <= self._emulator.now:
            self.tick()

    # --- requests -----------------------------------------------------------------------------------------------------

    def _request(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        sent = {"authorization": f"Bearer {self._key}", "content-type": "application/json", **headers}
        path, _, query = path.partition("?")
        handler = server(method, path).name
        request = http_event(method, path, body, query=dict(parse_qsl(query)), headers=sent)
        request["rawQueryString"] = query  # as it was sent
        with self._as_caller():
            answer = self._handlers[handler](request, LambdaContext(handler))
        content = answer["body"].encode()
        content = base64.b64decode(content) if answer.get("isBase64Encoded") else content
        return Answer(answer["statusCode"], answer["headers"], content)

    def _call(self, method: str, path: str, body: bytes = b"") -> Json:
        content: Json = self._request(method, path, body, {}).json()
        return content

    def _get(self, path: str) -> Json:
        return self._call("GET", path)

    def _all(self, path: str) -> list[Json]:
        """All items of a list, oldest first."""
        page = self._get(f"{path}limit=1000")
        items: list[Json] = page["data"]
        while page["next"] is not None:
            page = self._get(f"{path}limit=1000&after={page['next']}")
            items += page["data"]
        return items[::-1]


@contextmanager
def aws_account() -> Iterator[tuple[Emulator, LambdaHost]]:
    """An emulated account with a Lambda host, for tests that use it one after the other."""
    with Emulator() as emulator, LambdaHost(emulator, concurrency=64) as host:
        yield emulator, host
