"""An emulated AWS account for each test, in process."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import time_machine
from moto import mock_aws
from moto.core.botocore_stubber import BotocoreStubber

from stepwell.aws import clients
from stepwell.aws.resources import Resources
from stepwell.aws.signing import signing_keys
from stepwell.aws.table import positions
from stepwell.aws.table.keys import create_table
from stepwell.testing.account.faster_moto import faster_moto
from stepwell.testing.account.snapshot import Snapshot
from stepwell.testing.batches import Batches
from stepwell.testing.platform import START
from tests.containers import engine_or_skip

if TYPE_CHECKING:
    from stepwell.testing.ecs.containers import ContainerStepwell
    from tests.aws.containers import Images

REGION = "eu-west-1"
RESOURCES = Resources(
    env="test",
    region=REGION,
    account="123456789012",
    table="stepwell",
    bus="stepwell",
    events_queue="",
    events_queue_arn=f"arn:aws:sqs:{REGION}:123456789012:events",
    outcomes_queue="",
    outcomes_queue_arn=f"arn:aws:sqs:{REGION}:123456789012:outcomes",
    bucket="stepwell",
    step_http="stepwell-step-http",
    signing_keys_again_s=0.0,
)
_one_at_a_time = threading.RLock()  # moto's state must not be changed by two threads at once


@pytest.fixture(scope="session", autouse=True)
def moto_takes_requests_one_at_a_time() -> Iterator[None]:
    original = BotocoreStubber.__call__

    def call(self: BotocoreStubber, *arguments: Any, **more: Any) -> Any:
        with _one_at_a_time:
            return original(self, *arguments, **more)

    with pytest.MonkeyPatch.context() as patch, faster_moto():
        patch.setattr(BotocoreStubber, "__call__", call)
        yield


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in {"REGION": REGION, "DEFAULT_REGION": REGION}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setattr(positions, "_last", 0)  # the clock of another test may have been ahead
    clients.reset()
    with mock_aws():
        yield
    clients.reset()


@functools.cache
def _made() -> tuple[Resources, Snapshot]:
    """The table, the bus and the queues of an environment, and an account that contains nothing else."""
    create_table(clients.client("dynamodb"), "stepwell")
    clients.client("events").create_event_bus(Name="stepwell")
    signing_keys.make_keys(clients.client("ssm"), RESOURCES, 0)
    urls = {name: clients.client("sqs").create_queue(QueueName=name)["QueueUrl"] for name in ("events", "outcomes")}
    return replace(RESOURCES, events_queue=urls["events"], outcomes_queue=urls["outcomes"]), Snapshot()


def _begin() -> Resources:
    resources, snapshot = _made()
    snapshot.restore()
    return resources


@pytest.fixture
def resources(account: None) -> Resources:
    """The table, the bus and the queues of an environment."""
    return _begin()


@pytest.fixture
def clock() -> Iterator[Any]:
    """Time that only moves when the test shifts it."""
    with time_machine.travel(START, tick=False) as traveller:
        yield traveller


@pytest.fixture
def batches(resources: Resources, clock: Any) -> Batches:
    """The engine's Lambdas with the queues that trigger them. The test chooses the outcomes of steps."""
    return Batches(resources)


@pytest.fixture
def requests(resources: Resources) -> list[str]:
    """The names of the requests to DynamoDB that this test has made so far."""
    made: list[str] = []
    remember: Callable[..., None] = lambda model, **_: made.append(model.name)  # noqa: E731
    clients.client("dynamodb").meta.events.register("before-call.dynamodb.*", remember)
    return made


@pytest.fixture
def new_account(account: None) -> Callable[[], Resources]:
    """Restores the account so that it contains only `resources`."""
    return _begin


# --- containers ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    """Skips the test if containers cannot be run."""
    from tests.aws.containers import Images

    folder = tmp_path_factory.mktemp("images")
    with pytest.MonkeyPatch.context() as patch, closing(Images()) as made:
        engine_or_skip(folder, patch)
        made.make_busybox(folder)
        made.make_adapter()
        yield made


@pytest.fixture(scope="module")
def account_with_ecs(images: Images) -> Iterator[tuple[Any, ...]]:
    from stepwell.testing.ecs.containers import container_account

    with container_account(images) as account:
        yield account


@pytest.fixture
def aws(account_with_ecs: tuple[Any, ...]) -> Iterator[ContainerStepwell]:
    """An environment that runs containers, in an otherwise empty emulated account."""
    from stepwell.testing.ecs.containers import ContainerStepwell

    aws = ContainerStepwell(*account_with_ecs)
    yield aws
    aws.close()
