"""An account with injected faults: the faults are those of AWS, and Stepwell copes with them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from stepwell.aws.clients import client
from stepwell.aws.queues.outbox import put_events, send_messages
from stepwell.aws.table.items import put_items, read_items
from stepwell.testing.account.environment import ENGINE_EVENTS
from stepwell.testing.account.unkindness import CALLER, ENGINE, Unkindness
from stepwell.testing.ecs.containers import ContainerStepwell
from tests.behaviour.words import function, write_function

ITEMS = [{"pk": {"S": "p"}, "sk": {"S": str(n)}} for n in range(60)]
Account = Callable[[Unkindness], ContainerStepwell]


@pytest.fixture
def account(stepwell_aws_account: Any) -> Iterator[Account]:
    """Makes an environment in an account with these faults."""
    made = []

    def make(unkindness: Unkindness) -> ContainerStepwell:
        made.append(ContainerStepwell(*stepwell_aws_account, unkindness=unkindness))
        return made[-1]

    yield make
    for container_stepwell in made:
        container_stepwell.close()


def completes(stepwell: ContainerStepwell, folder: Path) -> None:
    """Checks that a function of three steps completes."""
    stepwell.deploy(write_function(folder, function({"a": {}, "b": "a", "c": "b"}), None))
    (run,) = stepwell.runs(stepwell.send("go"))
    assert run["status"] == "completed", run


# --- the seed --------------------------------------------------------------------------------------------------------


def test_faults_depend_only_on_the_seed_and_the_number_of_the_draw() -> None:
    one, same, other = Unkindness("a"), Unkindness("a"), Unkindness("b")
    other_kinds_between = [same.fraction("else") and same.fraction("x") for _ in range(5)]
    assert [one.fraction("x") for _ in range(5)] == other_kinds_between
    assert [other.fraction("x") for _ in range(5)] != other_kinds_between


def test_a_failed_test_prints_how_to_repeat_it(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_fails(stepwell_unkindness):\n    assert 1 == 2\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--unkind", "--unkind-seed=s7", "test_it.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "to repeat it: pytest --unkind --unkind-seed=s7 'test_it.py::test_fails'" in done.stdout


# --- requests --------------------------------------------------------------------------------------------------------

REQUESTS = [
    ("dynamodb", "list_tables", {}, "ProvisionedThroughputExceededException"),
    ("sqs", "list_queues", {}, "RequestThrottled"),
    ("events", "list_rules", {}, "ThrottlingException"),
    ("lambda", "list_functions", {}, "TooManyRequestsException"),
    ("s3", "list_buckets", {}, "SlowDown"),
    ("ssm", "describe_parameters", {}, "ThrottlingException"),
    ("iam", "list_roles", {}, "Throttling"),
    ("logs", "describe_log_groups", {}, "ThrottlingException"),
    ("ecs", "list_clusters", {}, "ThrottlingException"),
]


@pytest.mark.parametrize(
    ("service", "operation", "parameters", "code"), REQUESTS, ids=[request[0] for request in REQUESTS]
)
def test_a_service_refuses_with_its_own_error_and_boto3_tries_four_times(
    account: Account, service: str, operation: str, parameters: dict[str, Any], code: str
) -> None:
    unkindness = Unkindness.only(throttling=1, longest_throttling=7)
    account(unkindness)

    def ask_until_refused() -> None:
        while True:
            getattr(client(service), operation)(**parameters)

    with unkindness.acting(ENGINE), pytest.raises(ClientError) as refused:
        ask_until_refused()
    assert refused.value.response["Error"]["Code"] == code
    assert refused.value.response["ResponseMetadata"]["RetryAttempts"] == 3


def test_callers_are_refused_less_often_than_boto3_tries(account: Account) -> None:
    unkindness = Unkindness.only(throttling=1)
    account(unkindness)
    with unkindness.acting(CALLER):
        for _ in range(20):
            client("dynamodb").list_tables()
    assert unkindness.done["throttled dynamodb.ListTables"] >= 20


def test_requests_of_tests_get_no_faults(account: Account) -> None:
    unkindness = Unkindness.only(throttling=1)
    account(unkindness)
    client("dynamodb").list_tables()
    assert not unkindness.done


def test_only_the_refused_part_of_a_batch_is_sent_again(account: Account) -> None:
    unkindness = Unkindness.only(partial_failures=1)
    resources = account(unkindness).resources
    with unkindness.acting(CALLER):
        put_items(resources.table, ITEMS)
        assert sorted(map(str, read_items(resources.table, ITEMS, consistent=True))) == sorted(map(str, ITEMS))
        send_messages(resources.outcomes_queue, [{"MessageBody": str(n)} for n in range(30)])
        entry = {"Source": "stepwell.engine", "DetailType": "x", "Detail": "{}", "EventBusName": resources.bus}
        put_events([entry] * 30)
    engine_events = client("sqs").get_queue_url(QueueName=ENGINE_EVENTS)["QueueUrl"]
    assert [count(url) for url in (resources.outcomes_queue, engine_events)] == [30, 30]
    kinds = ("dynamodb.BatchWriteItem", "dynamodb.BatchGetItem", "sqs.SendMessageBatch", "eventbridge.PutEvents")
    assert all(unkindness.done[f"refused a part of {kind}"] for kind in kinds)


def count(url: str) -> int:
    name = "ApproximateNumberOfMessages"
    return int(client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name])


def test_a_request_with_a_lost_answer_is_carried_out(account: Account) -> None:
    unkindness = Unkindness.only(lost_answers=1)
    resources = account(unkindness).resources
    with (
        unkindness.acting(CALLER),
        pytest.raises(ClientError) as lost,
    ):  # boto3 retries, and finds that the queue exists
        client("dynamodb").put_item(
            TableName=resources.table, Item=ITEMS[0], ConditionExpression="attribute_not_exists(pk)"
        )
    assert lost.value.response["Error"]["Code"] == "ConditionalCheckFailedException"
    assert read_items(resources.table, ITEMS[:1], consistent=True) == ITEMS[:1]


# --- how Stepwell copes ----------------------------------------------------------------------------------------------

KINDS = {
    "small_batches": 1,
    "reordering": 1,
    "duplicates": 0.5,
    "twins": 1,
    "overlaps": 1,
    "throttling": 0.3,
    "lost_answers": 0.5,
    "partial_failures": 1,
    "repeated_invocations": 1,
    "new_functions": 0.9,
    "unknown_functions": 0.9,
    "lagging_indexes": 1,
    "lagging_lists": 1,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_completes_despite_any_fault(account: Account, tmp_path: Path, kind: str) -> None:
    completes(account(Unkindness.only(**{kind: KINDS[kind]})), tmp_path)


def test_two_lambdas_with_the_same_messages_start_each_attempt_once(account: Account, tmp_path: Path) -> None:
    unkindness = Unkindness.only(overlaps=1)
    stepwell = account(unkindness)
    completes(stepwell, tmp_path)
    assert unkindness.done["gave a batch to two Lambdas"] >= 1
    (run,) = stepwell.runs()
    assert [len(step["attempts"]) for step in run["steps"].values()] == [1, 1, 1]


def test_an_account_has_no_faults_after_its_test(stepwell_aws_account: Any) -> None:
    ContainerStepwell(*stepwell_aws_account, unkindness=Unkindness()).close()
    assert stepwell_aws_account[0].unkindness is None
