"""Each Lambda may do exactly what the code does: a scenario's recorded requests are compared with the roles.

The roles of the engine's Lambdas are read from the stack's template; those of steps are created by `push`.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest

from infra.settings import Settings
from stepwell.aws.deploy.roles import POLICY
from stepwell.aws.naming import role_prefix
from stepwell.aws.topology import FUNCTIONS
from stepwell.testing.account.environment import ENV
from stepwell.testing.aws import aws_account
from tests.aws.permissions import Access, Account, Grant, Json, grants
from tests.aws.recorded import RecordedStepwell, Recorder, lambda_name
from tests.aws.scenario import MINE, Scenario
from tests.aws.stack_roles import Stack

QUIET: Json = {"env": ENV, "alarms": False, "dashboard": False}
STACKS = {
    "bare": Settings(**QUIET),
    "full": Settings(
        **QUIET,
        ingest="direct",
        keep_data=False,
        tracing=True,
        vpc="vpc-0123abcd",
        subnets="subnet-0123abcd",
        step_lambdas=MINE,
        kms_key="arn:aws:kms:us-east-1:123456789012:key/12345678-1234-1234-1234-123456789012",
    ),
}
XRAY = ("xray:PutTraceSegments", "xray:PutTelemetryRecords")


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """A server that accepts the requests of `http` steps, and the answers of a custom resource."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        do_PUT = do_POST  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass(frozen=True)
class Role:
    """The permissions of a role, and the requests made with it."""

    grants: set[Grant]
    asked: set[Access]

    @property
    def missing(self) -> list[Access]:
        return sorted(access for access in self.asked if not any(one.allows(access) for one in self.grants))

    @property
    def surplus(self) -> list[str]:
        return sorted(surplus for grant in self.grants for surplus in grant.surplus(self.asked))


def roles_of_engine(stack: Stack, recorder: Recorder) -> dict[str, Role]:
    """By Lambda. A traced Lambda also sends traces."""
    roles = {}
    for name in [function.name for function in FUNCTIONS]:
        traces = {Access(name, "*") for name in XRAY} if stack.is_traced(name) else set()
        roles[name] = Role(stack.grants(name), recorder.accesses[lambda_name(name)] | traces)
    return roles


def roles_of_steps(recorder: Recorder) -> dict[str, Role]:
    """By role. A role belongs to all Lambdas and containers of one Stepwell function."""
    iam, asked = boto3.client("iam"), defaultdict(set)
    for function in boto3.client("lambda").list_functions()["Functions"]:
        asked[function["Role"].rpartition("/")[2]] |= recorder.accesses[function["FunctionName"]]
    roles = {}
    for name in [role["RoleName"] for role in iam.list_roles()["Roles"]]:
        if name.startswith(role_prefix(ENV)):
            policy = iam.get_role_policy(RoleName=name, PolicyName=POLICY)["PolicyDocument"]
            roles[name] = Role(grants(policy["Statement"]), asked[name] | recorder.accesses[name])
    return roles


def pushed_to_recur() -> set[str]:
    lambdas = boto3.client("lambda")
    names = [function["FunctionName"] for function in lambdas.list_functions()["Functions"]]
    return {
        name for name in names if lambdas.get_function_recursion_config(FunctionName=name)["RecursiveLoop"] == "Allow"
    }


def in_a_loop(recorder: Recorder) -> set[str]:
    """The Lambdas that may start themselves, through queues and other Lambdas."""
    leads_to: dict[str, set[str]] = defaultdict(set)
    for name, accesses in recorder.accesses.items():
        own = recorder.account.arn("lambda", f"function:{name}")
        for access in accesses:
            if access.action == "sqs:ReceiveMessage":
                leads_to[access.resource].add(own)
            elif access.action in ("sqs:SendMessage", "lambda:InvokeFunction"):
                leads_to[own].add(access.resource)
    return {name.rpartition(":")[2] for name in leads_to if ":function:" in name and name in _reached(name, leads_to)}


def _reached(start: str, leads_to: Mapping[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    new = {start}
    while new := {name for one in new for name in leads_to.get(one, ())} - reached:
        reached |= new
    return reached


@pytest.mark.parametrize("name", STACKS)
def test_roles_allow_exactly_what_the_code_does_and_loops_may_go_on(name: str, tmp_path: Path, site: str) -> None:
    settings = STACKS[name]
    stack = Stack(settings, tmp_path / "cdk.out")
    with aws_account() as (emulator, host):
        recorder = Recorder(emulator)
        fields = {"ingest": settings.ingest, "kms_key": settings.kms_key, "event_age_s": 60}
        stepwell = RecordedStepwell(recorder, emulator, host, containers=settings.has_containers, **fields)
        stack.read_with(stepwell.resources)
        with recorder.recording():
            Scenario(stepwell, settings, site, tmp_path).play()
        if settings.kms_key:
            recorder.use_key(settings.kms_key)
        roles = roles_of_engine(stack, recorder) | roles_of_steps(recorder)
        may_recur = {
            lambda_name(function.name) for function in FUNCTIONS if stack.may_recur(function.name)
        } | pushed_to_recur()
        stepwell.close()
    assert {name: role.missing for name, role in roles.items() if role.missing} == {}
    assert {name: role.surplus for name, role in roles.items() if role.surplus} == {}
    assert in_a_loop(recorder) - may_recur == set()
    assert in_a_loop(recorder) > {"stepwell-advance", "stepwell-step-http"}


# --- the checker of permissions --------------------------------------------------------------------------------------

TABLE = Access("dynamodb:GetItem", "arn:table/one")
READ = Access("dynamodb:BatchGetItem", "arn:table/one", (("dynamodb:LeadingKeys", ("KEY", "Y#paid")),))
DECRYPT = Access("kms:Decrypt", "arn:key", (("kms:EncryptionContext:PARAMETER_ARN", "arn:parameter/secrets/a"),))
RUN = Access("ecs:RunTask", "arn:task-definition/a-b:1", (("ecs:cluster", "arn:cluster/mine"),))


def partitions(*patterns: str) -> Json:
    return {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": list(patterns)}}


def context(*patterns: str) -> Json:
    return {"StringLike": {"kms:EncryptionContext:PARAMETER_ARN": list(patterns)}}


STATEMENT: Json = {"Effect": "Allow", "Action": "ecs:RunTask", "Resource": "*"}


@pytest.mark.parametrize(
    ("statement", "access", "is_allowed"),
    [
        ({"Action": "dynamodb:GetItem", "Resource": "arn:table/one"}, TABLE, True),
        ({"Action": ["dynamodb:Query", "dynamodb:GetItem"], "Resource": ["arn:x", "arn:table/*"]}, TABLE, True),
        ({"Action": "dynamodb:Query", "Resource": "arn:table/one"}, TABLE, False),
        ({"Action": "dynamodb:GetItem", "Resource": "arn:table/one/index/status"}, TABLE, False),
        ({"Action": "dynamodb:GetItem", "Resource": "arn:table/o?e"}, TABLE, True),
        ({"Action": "dynamodb:GetItem", "Resource": "arn:table/one?"}, TABLE, False),
        ({"Resource": "arn:task-definition/a-*"}, RUN, True),
        ({"Condition": {"ArnEquals": {"ecs:cluster": "arn:cluster/mine"}}}, RUN, True),
        ({"Condition": {"ArnEquals": {"ecs:cluster": "arn:cluster/other"}}}, RUN, False),
        ({"Condition": {"StringEquals": {"ecs:owner": "me"}}}, RUN, False),
        ({"Action": "dynamodb:BatchGetItem", "Condition": partitions("KEY", "Y#*")}, READ, True),
        ({"Action": "dynamodb:BatchGetItem", "Condition": partitions("*")}, READ, True),
        ({"Action": "dynamodb:BatchGetItem", "Condition": partitions("Y#*")}, READ, False),
        ({"Action": "dynamodb:BatchGetItem", "Condition": partitions("KEY", "Y#")}, READ, False),
        ({"Action": "dynamodb:GetItem", "Condition": partitions("KEY")}, TABLE, True),  # no partition is named
        ({"Action": "kms:Decrypt", "Condition": context("arn:parameter/secrets/*", "arn:x")}, DECRYPT, True),
        ({"Action": "kms:Decrypt", "Condition": context("arn:parameter/signing-keys")}, DECRYPT, False),
    ],
)
def test_a_statement_allows_what_iam_takes_it_to_allow(statement: Json, access: Access, is_allowed: bool) -> None:
    assert any(grant.allows(access) for grant in grants([{**STATEMENT, **statement}])) is is_allowed


@pytest.mark.parametrize(
    "statement",
    [
        {"Effect": "Deny"},
        {"Action": "ecs:*"},
        {"NotResource": "arn:x"},
        {"Condition": {"StringLike": {"ecs:cluster": "*"}}},
        {"Condition": {"ForAnyValue:StringLike": {"dynamodb:LeadingKeys": ["*"]}}},
        {"Condition": {"ForAllValues:StringLike": {"aws:TagKeys": ["*"]}}},
        {"Condition": {"StringEquals": {"ecs:cluster": ["a", "b"]}}},
    ],
)
def test_a_statement_of_a_kind_that_is_not_proven_is_refused(statement: Json) -> None:
    with pytest.raises(NotImplementedError):
        grants([{**STATEMENT, **statement}])


def test_a_request_names_the_partitions_of_all_its_items() -> None:
    key = {"pk": {"S": "A"}, "sk": {"S": "1"}}
    batch = {"RequestItems": {"t": [{"PutRequest": {"Item": key}}, {"DeleteRequest": {"Key": {"pk": {"S": "B"}}}}]}}
    query = {"TableName": "t", "KeyConditionExpression": "pk = :p", "ExpressionAttributeValues": {":p": {"S": "A"}}}
    account = Account("eu-west-1", "1")
    for operation, request, named in (
        ("BatchWriteItem", batch, ("A", "B")),
        ("BatchGetItem", {"RequestItems": {"t": {"Keys": [key]}}}, ("A",)),
        ("GetItem", {"TableName": "t", "Key": key}, ("A",)),
        ("PutItem", {"TableName": "t", "Item": key}, ("A",)),
        ("Query", query, ("A",)),
    ):
        (access,) = account.needs("dynamodb", operation, request)
        assert access.context == (("dynamodb:LeadingKeys", named),)


def test_values_of_a_condition_that_no_request_needs_are_surplus() -> None:
    (grant,) = grants([{**STATEMENT, "Action": "dynamodb:BatchGetItem", "Condition": partitions("KEY", "Y#*", "U#*")}])
    assert grant.surplus([READ]) == ["dynamodb:BatchGetItem on *, dynamodb:LeadingKeys U#*"]
    assert grant.surplus([TABLE]) == ["dynamodb:BatchGetItem on *"]


def test_a_transaction_needs_the_right_to_each_of_its_writes() -> None:
    writes = [{"Put": {"TableName": "t"}}, {"ConditionCheck": {"TableName": "u"}}]
    needed = Account("eu-west-1", "1").needs("dynamodb", "TransactWriteItems", {"TransactItems": writes})
    assert list(needed) == [
        Access("dynamodb:PutItem", "arn:aws:dynamodb:eu-west-1:1:table/t"),
        Access("dynamodb:ConditionCheckItem", "arn:aws:dynamodb:eu-west-1:1:table/u"),
    ]
