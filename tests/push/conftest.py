"""An emulated AWS account for pushes: moto, with additions that it lacks."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.core.botocore_stubber import BotocoreStubber

from stepwell.aws import clients
from stepwell.aws.deploy.account import Account
from stepwell.aws.deploy.actions import Action
from stepwell.aws.deploy.push import Push, Watcher
from stepwell.aws.deploy.wanted import wanted
from stepwell.aws.functions.releases import Registered
from stepwell.aws.resources import Resources, parameter
from stepwell.aws.table.keys import create_table
from stepwell.project.load import load_all
from stepwell.testing.account.faster_moto import faster_moto

ACCOUNT, REGION = "123456789012", "eu-central-1"
READS = ("Get", "List", "Describe", "Head", "Query", "BatchGet")
Json = dict[str, Any]


class Body:
    """The body of a response, as botocore reads it."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self._content


@dataclass
class Aws:
    """The account, with a record of the requests."""

    resources: Resources
    session: Any
    calls: Counter[str] = field(default_factory=Counter)
    recursion: dict[str, str] = field(default_factory=dict)
    failures: list[tuple[str, Exception, int]] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)

    @property
    def writes(self) -> Counter[str]:
        """The number of requests that change something, by operation."""
        names = {name: n for name, n in self.calls.items() if not name.startswith(READS)}
        return Counter({name: n for name, n in names.items() if name not in ("AssumeRole", "GetCallerIdentity")})

    def fail_once(self, operation: str, error: Exception, *, after: int = 0) -> None:
        """Lets one request of this operation fail without effect: the next one, or the one after `after` others."""
        self.failures.append((operation, error, self.calls[operation] + after))

    def account(self) -> Account:
        """An `Account` with new clients, which have all event handlers registered so far."""
        return Account(self.session)

    def push(
        self, *paths: Path, dry_run: bool = False, watcher: Watcher | None = None
    ) -> tuple[list[Action], list[Registered]]:
        functions, errors = load_all(paths)
        assert not errors, errors
        items = wanted(functions, self.resources)
        pushing = Push(self.resources, self.account(), watcher or Silent(), sleep=self.slept.append)
        found, actions = pushing.plan(items)
        return actions, [] if dry_run else pushing.apply(items, found, actions)

    # --- hooks -----------------------------------------------------------------------------------------------------

    def count(self, model: Any, **_: Any) -> None:
        self.calls[model.name] += 1
        for i, (operation, error, after) in enumerate(self.failures):
            if operation == model.name and self.calls[operation] > after:
                del self.failures[i]
                raise error

    def answer_recursion(self, request: Any, **_: Any) -> AWSResponse:
        """Emulates the recursion configuration, which moto lacks."""
        name = request.url.rpartition("/functions/")[2].partition("/")[0]
        if request.method == "PUT":
            self.recursion[name] = json.loads(request.body)["RecursiveLoop"]
        body = json.dumps({"RecursiveLoop": self.recursion.get(name, "Terminate")}).encode()
        return AWSResponse(request.url, 200, {}, Body(body))


class Silent:
    """A watcher that ignores all progress."""

    def begin(self, action: Action) -> None: ...

    def sent(self, action: Action, size: int, total: int) -> None: ...

    def log(self, action: Action, line: str) -> None: ...

    def end(self, action: Action) -> None: ...


def refusal(code: str, message: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", REGION),
        ("AWS_DEFAULT_REGION", REGION),
    ):
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "STEPWELL_ENV", "STEPWELL_URL", "STEPWELL_KEY"):
        monkeypatch.delenv(name, raising=False)
    lock, call = threading.RLock(), BotocoreStubber.__call__

    def one_at_a_time(self: Any, *arguments: Any, **named: Any) -> Any:
        with lock:
            return call(self, *arguments, **named)

    monkeypatch.setattr(BotocoreStubber, "__call__", one_at_a_time)  # moto is not thread-safe
    clients.reset()
    with faster_moto(), mock_aws():
        boto3.setup_default_session()
        session = boto3.DEFAULT_SESSION
        made = Aws(_resources(session), session)
        session.events.register("before-call", made.count)
        for operation in ("GetFunctionRecursionConfig", "PutFunctionRecursionConfig"):
            session.events.register(f"before-send.lambda.{operation}", made.answer_recursion)
        yield made
    clients.reset()
    boto3.DEFAULT_SESSION = None


def _resources(session: Any) -> Resources:
    create_table(session.client("dynamodb"), "stepwell-dev")
    location = {"LocationConstraint": REGION}
    session.client("s3").create_bucket(Bucket="stepwell-dev-code", CreateBucketConfiguration=location)
    layers = {
        architecture: session.client("lambda").publish_layer_version(
            LayerName=f"adapter-{architecture}", Content={"ZipFile": b"adapter"}
        )["LayerVersionArn"]
        for architecture in ("x86_64", "arm64")
    }
    queue = f"arn:aws:sqs:{REGION}:{ACCOUNT}:stepwell-dev"
    url = f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/stepwell-dev"
    resources = Resources(
        env="dev",
        region=REGION,
        account=ACCOUNT,
        table="stepwell-dev",
        bus="stepwell-dev",
        events_queue=f"{url}-events",
        events_queue_arn=f"{queue}-events",
        outcomes_queue=f"{url}-outcomes",
        outcomes_queue_arn=f"{queue}-outcomes",
        bucket="stepwell-dev-code",
        step_http="stepwell-dev-step_http",
        layers=layers,
    )
    session.client("ssm").put_parameter(Name=parameter("dev"), Value=resources.to_json(), Type="String")
    return resources


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a function: the fields of the definition, and the files of the folder."""

    def write(id: str = "f", files: dict[str, str] | None = None, **fields: Any) -> Path:
        folder = tmp_path / id
        folder.mkdir(exist_ok=True)
        definition = {"id": id, "triggers": [{"event": "go"}], **fields}
        (folder / "stepwell.json").write_text(json.dumps(definition))
        for name, text in (files or {"main.py": "print(1)\n"}).items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            if text.startswith("#!"):
                file.chmod(0o755)
        return folder

    return write
