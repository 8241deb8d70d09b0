"""Lambda in tests: runs functions that are stored in moto in real processes, through the real Runtime API.

moto stores functions and their settings; the host intercepts invocations, which moto would answer with their payload.
The result of an invocation goes to the destinations and logs, as on Lambda.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from moto.awslambda.exceptions import UnknownFunctionException
from moto.core.exceptions import ServiceException

from stepwell.testing.account.emulator import Emulator, answer
from stepwell.testing.lambdas.destinations import record
from stepwell.testing.lambdas.errors import (
    MAX_ASYNC_REQUEST,
    MAX_REQUEST,
    LambdaError,
    exit_error,
    not_json,
    request_too_large,
    throttled,
)
from stepwell.testing.lambdas.function import Destinations, Function, find
from stepwell.testing.lambdas.pool import SandboxPool
from stepwell.testing.lambdas.sandbox import Ended, Invocation

_PATH = re.compile(r"/2015-03-31/functions/(?P<name>[^/]+)/invocations")
_MAX_TAIL = 4096  # bytes of log that a synchronous invocation can return
_KILLED = -9
_LOG_READS = ("FilterLogEvents", "GetLogEvents")
_RECURSION = ("GetFunctionRecursionConfig", "PutFunctionRecursionConfig")


class LambdaHost:
    """Use it inside an `Emulator`. `concurrency`: how many invocations run at a time; others wait in a queue.

    Four counters affect the next asynchronous invocations. `lose_next` are never run, and `repeat_next` are run twice.
    `expire_next` wait too long in the queue, and `throttle_next` are refused (boto3 retries these).

    `shortcut(function, payload)` may return the answer to an asynchronous invocation. Then no process is started, and
    no log is written. None runs the function.
    """

    def __init__(self, emulator: Emulator, concurrency: int = 8, most_idle: int = 24) -> None:
        self._emulator = emulator
        self._sandboxes = SandboxPool(emulator, most_idle)
        self._lock = threading.Condition()
        self._recursion: dict[str, str] = {}
        self._pending = self._ended = self._reported = 0  # invocations; `wait_any` counts those that it has reported
        self._outstanding: dict[str, Invocation] = {}
        self._epoch = 0  # number of restarts; the results of earlier invocations are dropped
        self._problem: Exception | None = None
        self._undelivered: list[str] = []
        self.lose_next = self.repeat_next = self.expire_next = self.throttle_next = 0
        self.shortcut: Callable[[Function, bytes], bytes | None] = lambda function, payload: None
        self.concurrency = concurrency

    def __enter__(self) -> LambdaHost:
        self._emulator.intercept("lambda.Invoke", self._invoke)
        for operation in _RECURSION:
            self._emulator.intercept(f"lambda.{operation}", self._recursion_config)
        for operation in _LOG_READS:
            self._emulator.intercept(f"logs.{operation}", lambda _: self._sandboxes.flush_logs())
        return self

    def __exit__(self, *_: object) -> None:
        self.restart()
        self._threads.shutdown(wait=True)
        self._sandboxes.close()

    # --- methods for tests -------------------------------------------------------------------------------------------

    @property
    def concurrency(self) -> int:
        return self._concurrency

    @concurrency.setter
    def concurrency(self, limit: int) -> None:
        """Limits the invocations that are made from now on."""
        self._concurrency = limit
        self._threads = ThreadPoolExecutor(limit, "lambda")

    @property
    def sandboxes_started(self) -> int:
        return self._sandboxes.started

    @property
    def is_idle(self) -> bool:
        """Whether no invocation is pending. If so, all records are on the queues of the destinations."""
        return self._pending == 0

    def wait_any(self, timeout_s: float) -> bool:
        """Waits until an asynchronous invocation has ended since the last call, or none is pending."""
        with self._lock:
            has_ended = self._lock.wait_for(lambda: self._ended != self._reported or self._pending == 0, timeout_s)
            self._reported = self._ended
            self._raise_problem()
        return has_ended

    def wait_idle(self, timeout_s: float = 20.0) -> bool:
        """Waits until no invocation is pending. Returns False on timeout."""
        with self._lock:
            is_idle = self._lock.wait_for(lambda: self._pending == 0, timeout_s)
            self._raise_problem()
        return is_idle

    @property
    def outstanding(self) -> list[bytes]:
        """The payloads of asynchronous invocations that have not ended."""
        with self._lock:
            return [invocation.payload for invocation in self._outstanding.values()]

    def take_undelivered(self) -> list[str]:
        """The records, since the last call, that could not be delivered (on AWS: DestinationDeliveryFailures)."""
        found, self._undelivered = self._undelivered, []
        return found

    def kill_running(self) -> None:
        """Kills running invocations; they leave no record. Queued ones are run."""
        self._sandboxes.drop_running()

    def restart(self) -> None:
        """Kills running invocations and drops queued ones, without records. Warm sandboxes stay."""
        with self._lock:
            self._epoch += 1
        self._sandboxes.drop_running()
        assert self.wait_idle(), "an invocation does not end"

    def forget_warm(self) -> None:
        """Makes the next invocation of each function a cold start."""
        self._sandboxes.forget_warm()

    def reset(self) -> None:
        """Forgets everything about the functions, for an account that is empty now."""
        self.restart()
        self.forget_warm()
        self._recursion.clear()
        self._undelivered.clear()
        self.lose_next = self.repeat_next = self.expire_next = self.throttle_next = 0

    def _raise_problem(self) -> None:
        problem, self._problem = self._problem, None
        if problem is not None:
            raise problem

    # --- requests ----------------------------------------------------------------------------------------------------

    def _invoke(self, request: AWSPreparedRequest) -> AWSResponse | None:
        try:
            return self._take_request(request)
        except LambdaError as refused:
            return answer(request, refused.status, refused.body, x_amzn_errortype=refused.code)

    def _take_request(self, request: AWSPreparedRequest) -> AWSResponse | None:
        url = urlsplit(request.url)
        match = _PATH.fullmatch(url.path)
        if match is None:
            return None
        kind = _header(request, "X-Amz-Invocation-Type") or "RequestResponse"
        qualifier = parse_qs(url.query).get("Qualifier", [None])[0]
        function, ends = self._find(unquote(match["name"]), qualifier)
        invocation = Invocation(_payload(request, MAX_ASYNC_REQUEST if kind == "Event" else MAX_REQUEST))
        if kind == "DryRun":
            return answer(request, 204, b"")
        if kind == "Event":
            self._enqueue(function, ends, invocation)
            return answer(request, 202, b"", x_amzn_requestid=invocation.id)
        ended, lines = self._sandboxes.run(function, invocation)
        ended = ended or Ended(exit_error(invocation.id, _KILLED), is_error=True)
        more = {"x_amz_function_error": "Unhandled"} if ended.is_error else {}
        if _header(request, "X-Amz-Log-Type") == "Tail":
            tail = "".join(f"{line}\n" for line in lines).encode()[-_MAX_TAIL:]
            more["x_amz_log_result"] = base64.b64encode(tail).decode()
        more |= {"x_amzn_requestid": invocation.id, "x_amz_executed_version": "$LATEST"}
        return answer(request, 200, ended.payload, **more)

    def _find(self, name_or_arn: str, qualifier: str | None) -> tuple[Function, Destinations]:
        try:
            with self._emulator.lock:
                return find(self._emulator.account, self._emulator.region, name_or_arn, qualifier)
        except UnknownFunctionException as unknown:
            raise LambdaError(404, "ResourceNotFoundException", str(unknown.message)) from None

    def _recursion_config(self, request: AWSPreparedRequest) -> AWSResponse:
        """moto has no such settings."""
        name = unquote(urlsplit(request.url).path.split("/functions/")[1].split("/")[0])
        try:
            function, _ = self._find(name, None)
        except LambdaError as refused:
            return answer(request, refused.status, refused.body, x_amzn_errortype=refused.code)
        if request.method == "PUT":
            self._recursion[function.arn] = json.loads(request.body)["RecursiveLoop"]
        found = self._recursion.get(function.arn, "Terminate")
        return answer(request, 200, json.dumps({"RecursiveLoop": found}).encode())

    # --- the asynchronous queue --------------------------------------------------------------------------------------

    def _enqueue(self, function: Function, ends: Destinations, invocation: Invocation) -> None:
        if self._planned("throttle_next"):
            raise throttled()
        if self._planned("lose_next"):
            return
        times = 2 if self._planned("repeat_next") or self._happens_twice() else 1
        is_expired = self._planned("expire_next")
        with self._lock:
            self._pending += times
            self._outstanding[invocation.id] = invocation
            epoch = self._epoch
        for _ in range(times):
            self._threads.submit(self._work, function, ends, invocation, epoch, is_expired)

    def _happens_twice(self) -> bool:
        unkindness = self._emulator.unkindness
        if unkindness is None or not unkindness.happens("repeated invocation", unkindness.repeated_invocations):
            return False
        unkindness.note("ran an invocation twice")
        return True

    def _planned(self, knob: str) -> bool:
        with self._lock:
            left: int = getattr(self, knob)
            setattr(self, knob, max(0, left - 1))
            return left > 0

    def _work(
        self, function: Function, ends: Destinations, invocation: Invocation, epoch: int, is_expired: bool
    ) -> None:
        try:
            if is_expired and epoch == self._epoch:
                self._deliver_record(function, ends, invocation, None, 0)
            else:
                self._try(function, ends, invocation, epoch)
        except Exception as problem:  # a bug in the host: raised again in the thread that waits for the invocation
            self._problem = problem
        finally:
            with self._lock:
                self._pending -= 1
                self._ended += 1
                self._outstanding.pop(invocation.id, None)
                self._lock.notify_all()

    def _run(self, function: Function, invocation: Invocation) -> Ended | None:
        answered = self.shortcut(function, invocation.payload)
        return self._sandboxes.run(function, invocation)[0] if answered is None else Ended(answered, is_error=False)

    def _try(self, function: Function, ends: Destinations, invocation: Invocation, epoch: int) -> None:
        """Runs an invocation, with retries at once. Lambda waits a minute or two, but here the clock stands still."""
        for tries in range(1, ends.retries + 2):
            if epoch != self._epoch:
                return
            ended = self._run(function, invocation)
            if ended is None:
                return
            if not ended.is_error or tries > ends.retries:
                self._deliver_record(function, ends, invocation, ended, tries)
                return

    def _deliver_record(
        self, function: Function, ends: Destinations, invocation: Invocation, ended: Ended | None, tries: int
    ) -> None:
        is_success = ended is not None and not ended.is_error
        arn = ends.on_success if is_success else ends.on_failure
        if not arn:
            return
        text = record(function, invocation, ended, tries)
        try:
            self._emulator.queues.send(arn, text)
        except (ServiceException, ValueError) as refused:  # too large, or the queue does not exist
            self._undelivered.append(f"{arn}: {refused}: {text[:1000]}")


def _header(request: AWSPreparedRequest, name: str) -> str:
    value: Any = request.headers.get(name, "")
    return value.decode() if isinstance(value, bytes) else str(value)


def _payload(request: AWSPreparedRequest, limit: int) -> bytes:
    """The payload of a request. Raises LambdaError."""
    body = request.body
    if hasattr(body, "read"):
        body = body.read()
    payload: bytes = body.encode() if isinstance(body, str) else bytes(body or b"{}")
    if len(payload) > limit:
        raise request_too_large(limit)
    try:
        json.loads(payload)
    except ValueError as error:
        raise not_json(str(error)) from None
    return payload
