"""An AWS account in the test's own process: moto's services, behind one lock, under a clock that the test moves.

Where moto differs from AWS, this module corrects it, and a comment describes the behaviour of AWS.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from functools import cached_property
from types import SimpleNamespace
from typing import Any, ClassVar, TypeVar
from unittest.mock import patch

import time_machine
from botocore import endpoint as botocore_endpoint
from botocore import waiter as botocore_waiter
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.retries.bucket import TokenBucket
from moto import mock_aws
from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.base_backend import BackendDict
from moto.core.botocore_stubber import BotocoreStubber, MockRawResponse
from moto.events.utils import EventTemplateParser

from stepwell.aws import clients
from stepwell.aws.deploy.account import Account
from stepwell.aws.queues import outbox
from stepwell.aws.table import items
from stepwell.testing.account.endpoint import Endpoint
from stepwell.testing.account.faster_moto import faster_moto
from stepwell.testing.account.queues import Queues, exact_delays
from stepwell.testing.account.snapshot import Snapshot
from stepwell.testing.account.tables import Tables
from stepwell.testing.account.unkind_requests import UnkindRequests
from stepwell.testing.account.unkindness import Unkindness
from stepwell.testing.platform import START

T = TypeVar("T")
Intercept = Callable[[AWSPreparedRequest], AWSResponse | None]
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "emulator", "AWS_SECRET_ACCESS_KEY": "emulator", "AWS_SESSION_TOKEN": "emulator"}


class Emulator:
    """`with Emulator() as aws:` connects every boto3 client of this process to moto, from any thread.

    The clock stands still, and `advance` moves it. Waiting in real time (`threading`, `time.monotonic`) works as usual.
    """

    account = DEFAULT_ACCOUNT_ID
    _beginnings: ClassVar[dict[tuple[str, datetime, str], tuple[Any, Snapshot]]] = {}  # shared by this process

    def __init__(self, region: str = "us-east-1", start: datetime = START) -> None:
        self.region, self.start = region, start
        self.lock = threading.RLock()  # moto's state is not thread-safe
        self.queues = Queues(self.account, region, self.lock)
        self.tables = Tables(self.account, region, self.lock)
        self._intercepts: dict[str, Intercept] = {}
        self._stack = ExitStack()
        self._unkind: UnkindRequests | None = None

    def __enter__(self) -> Emulator:
        enter = self._stack.enter_context
        enter(_environment(self.region))
        enter(mock_aws(config={"core": {"mock_credentials": False}}))
        enter(patch.object(BotocoreStubber, "__call__", self._one_at_a_time(BotocoreStubber.__call__)))
        enter(patch.object(EventTemplateParser, "parse", staticmethod(_event_as_delivered(EventTemplateParser.parse))))
        for module in (botocore_endpoint, botocore_waiter, outbox, items):
            enter(patch.object(module, "time", SimpleNamespace(sleep=_no_sleep)))
        enter(patch.object(TokenBucket, "acquire", lambda *_, **__: True))  # it would wait for the stopped clock
        enter(faster_moto())
        enter(exact_delays())
        self._clock = enter(time_machine.travel(0, tick=False))
        self._set_clock()
        clients.reset()
        self._stack.callback(clients.reset)
        return self

    def __exit__(self, *_: object) -> None:
        if "endpoint" in self.__dict__:
            self.__dict__.pop("endpoint").close()
        self._stack.close()

    # --- time --------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        """The emulated time, in milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def advance(self, ms: int) -> None:
        self._clock.shift(timedelta(milliseconds=ms))

    def _set_clock(self) -> None:
        """Sets the clock to `start`, in two steps: a float would miss the millisecond, and a datetime would set TZ."""
        seconds = int(self.start.timestamp())
        self._clock.move_to(seconds)
        self._clock.shift(timedelta(microseconds=self.start.microsecond))

    # --- state -------------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Empties the account and sets the clock back to `start`. Clients remain valid."""
        with self.lock:
            BackendDict.reset()
        self._set_clock()

    def begin(self, name: str, make: Callable[[], T]) -> T:
        """Resets the account, and returns the result of `make`, which fills the empty account.

        The account after `make` is stored under `name`. With the same name, region and start, it is restored instead.
        """
        of = self.region, self.start, name
        if of in self._beginnings:
            made: T
            made, snapshot = self._beginnings[of]
            with self.lock:
                snapshot.restore()
            self._set_clock()
            return made
        self.reset()
        made = make()
        with self.lock:
            self._beginnings[of] = made, Snapshot()
        return made

    @cached_property
    def deployer(self) -> Account:
        """The clients with which a deployment changes this account."""
        return Account()

    @cached_property
    def endpoint(self) -> Endpoint:
        """The HTTP server through which other processes reach this account, by AWS_ENDPOINT_URL."""
        return Endpoint(self.request)

    # --- requests ----------------------------------------------------------------------------------------------------

    def intercept(self, operation: str, handler: Intercept) -> None:
        """Lets `handler` answer an operation such as `lambda.Invoke`; None passes the request on to moto.

        The requests of all clients in this process pass through here, also of clients made before. The handler is
        called without the lock, so it may take long.
        """
        self._intercepts[operation] = handler

    @property
    def unkindness(self) -> Unkindness | None:
        """The faults that this account injects; None injects no faults."""
        return None if self._unkind is None else self._unkind.unkindness

    @unkindness.setter
    def unkindness(self, unkindness: Unkindness | None) -> None:
        self._unkind = None if unkindness is None else UnkindRequests(unkindness, answer, lambda: self.now)

    def request(self, operation: str, request: AWSPreparedRequest) -> AWSResponse | None:
        """Answers a request that comes from outside this process."""
        return BotocoreStubber.__call__(_stubber(), f"before-send.{operation}", request)

    def _one_at_a_time(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(stubber: BotocoreStubber, event_name: str, request: AWSPreparedRequest, **more: Any) -> Any:
            operation = event_name.removeprefix("before-send.")

            def send(request: AWSPreparedRequest) -> Any:
                handler = self._intercepts.get(operation)
                answer = None if handler is None else handler(request)
                if answer is not None:
                    return answer
                with self.lock:
                    return original(stubber, event_name, request, **more)

            return send(request) if self._unkind is None else self._unkind.send(operation, request, send)

        return call


def answer(request: AWSPreparedRequest, status: int, body: bytes, **headers: str) -> AWSResponse:
    """Builds the response to an intercepted request. In the names of `headers`, `_` stands for `-`."""
    named = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return AWSResponse(request.url, status, named, MockRawResponse(body))


def _no_sleep(seconds: float) -> None:
    """Replaces `time.sleep` before retries: the clock is the test's, so waiting takes no time."""


def _stubber() -> BotocoreStubber:
    from moto.core.models import botocore_stubber

    return botocore_stubber


@contextmanager
def _environment(region: str) -> Iterator[None]:
    """Replaces the developer's AWS variables by the emulator's, and restores them at the end."""
    emulated = {
        **CREDENTIALS,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    before = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    for name in before:
        del os.environ[name]
    os.environ.update(emulated)
    try:
        yield
    finally:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
        os.environ.update(before)


def _event_as_delivered(transform: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a target without a transformer get the event unchanged, with the id first, as EventBridge delivers it.

    moto renders a template instead: without `account`, in another order, broken by quotes, and in 5 ms.
    """

    def parse(input_template: str | None, input_paths_map: dict[str, Any], event: dict[str, Any]) -> dict[str, Any]:
        if input_template is None:
            return {name: value for name, value in event.items() if name != "ingestion-time"}
        return dict(transform(input_template, input_paths_map, event))

    return parse
