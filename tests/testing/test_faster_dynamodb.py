"""The shortcut to moto's DynamoDB gives the same answers and leaves the same tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.core.botocore_stubber import BotocoreStubber
from moto.core.responses import BaseResponse

from stepwell.aws.table.keys import STATUS_INDEX, create_table
from stepwell.testing.account.faster_moto import faster_moto, plain_moto

Json = dict[str, Any]
KEY = {"pk": {"S": "a"}, "sk": {"S": "1"}}
ITEM = {
    **KEY,
    "gk": {"S": "g"},
    "gs": {"S": "s"},
    "number": {"N": "12.50"},
    "empty": {"S": ""},
    "bytes": {"B": b"\0\xff"},
    "B": {"B": b"B"},
    "several": {"BS": [b"1", b"\xfe"]},
    "BS": {"L": [{"B": b"in a list"}, {"NULL": True}, {"BOOL": False}, {"M": {"B": {"S": "text"}}}]},
    "names": {"SS": ["x", "y"]},
}
NAMED = {"ExpressionAttributeNames": {"#n": "number"}, "ExpressionAttributeValues": {":n": {"N": "12.5"}}}
OF_A = {"KeyConditionExpression": "pk = :pk", "ExpressionAttributeValues": {":pk": {"S": "a"}}}
OF_G = {"KeyConditionExpression": "gk = :gk", "ExpressionAttributeValues": {":gk": {"S": "g"}}}
REQUESTS: list[tuple[str, Json]] = [
    ("get_item", {"Key": KEY}),
    ("put_item", {"Item": ITEM, "ReturnConsumedCapacity": "TOTAL"}),
    ("put_item", {"Item": {**ITEM, "sk": {"S": "2"}, "gs": {"S": "r"}}}),
    ("put_item", {"Item": {**ITEM, "pk": {"S": "b"}, "gk": {"S": "h"}}}),
    ("put_item", {"Item": {"pk": {"S": "c"}, "sk": {"S": "1"}, "gk": {"S": "g"}}}),  # not in the index
    ("get_item", {"Key": KEY, "ConsistentRead": True}),
    ("get_item", {"Key": KEY, "ProjectionExpression": "#n, bytes", "ExpressionAttributeNames": {"#n": "number"}}),
    ("put_item", {"Item": ITEM, "ConditionExpression": "attribute_not_exists(pk)"}),
    (
        "put_item",
        {
            "Item": ITEM,
            "ConditionExpression": "#n <> :n",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            **NAMED,
        },
    ),
    ("put_item", {"Item": ITEM, "ReturnValues": "ALL_OLD"}),
    ("update_item", {"Key": KEY, "UpdateExpression": "SET #n = #n + :n", "ReturnValues": "ALL_NEW", **NAMED}),
    ("update_item", {"Key": KEY, "UpdateExpression": "SET #n ="}),
    ("query", OF_A),
    ("query", {**OF_A, "Limit": 1}),
    ("query", {**OF_A, "ScanIndexForward": False, "Select": "COUNT"}),
    ("query", {**OF_A, "ExclusiveStartKey": KEY}),
    ("query", {**OF_G, "IndexName": STATUS_INDEX}),
    ("query", {**OF_G, "IndexName": STATUS_INDEX, "Limit": 1, "ScanIndexForward": False}),
    ("query", {**OF_G, "IndexName": "none"}),
    ("delete_item", {"Key": KEY, "ReturnValues": "ALL_OLD"}),
    ("delete_item", {"Key": KEY}),
    ("get_item", {"Key": {"pk": {"S": ""}, "sk": {"S": "1"}}}),
    ("put_item", {"Item": {**ITEM, "large": {"B": bytes(400_000)}}}),
    ("put_item", {"Item": {**ITEM, "large": {"B": bytes(410_000)}}}),
    ("put_item", {"Item": {**ITEM, "large": {"S": "x" * 250_000}, "more": {"S": "x" * 160_000}}}),
]
BATCHES: list[tuple[str, Json]] = [
    ("batch_write_item", {"RequestItems": {"t": [{"PutRequest": {"Item": ITEM}}, {"DeleteRequest": {"Key": KEY}}]}}),
    ("batch_write_item", {"RequestItems": {"t": [{"PutRequest": {"Item": ITEM}}]}}),
    ("batch_get_item", {"RequestItems": {"t": {"Keys": [KEY], "ConsistentRead": True}}}),
    ("batch_get_item", {"RequestItems": {"t": {"Keys": [KEY, KEY]}}}),
    ("get_item", {"TableName": "none", "Key": KEY}),
]


@pytest.fixture(autouse=True)
def plain() -> Iterator[None]:
    """Restores plain moto: other tests of this process may have left it patched."""
    with plain_moto():
        yield


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")


def answers(region: str = "eu-west-1") -> Iterator[Json]:
    """The answers to all requests, made one by one on a new table."""
    with mock_aws():
        client = boto3.client("dynamodb", region)
        create_table(client, "t")
        for operation, request in [*((name, {"TableName": "t", **item}) for name, item in REQUESTS), *BATCHES]:
            try:
                answer = getattr(client, operation)(**request)
            except ClientError as error:
                answer = error.response
            answer["status"] = answer.pop("ResponseMetadata")["HTTPStatusCode"]
            yield answer


def test_answers_are_the_same_as_without_the_shortcut() -> None:
    expected = list(answers())
    with faster_moto():
        assert list(answers()) == expected
    assert {answer["status"] for answer in expected} == {200, 400}
    assert expected[5]["Item"] == ITEM


def test_the_shortcut_is_used_for_everything_but_creating_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a new moto or boto3 no longer uses the shortcut."""
    seen: list[str] = []
    original = BaseResponse.setup_class

    def setup_class(self: BaseResponse, *arguments: Any, **more: Any) -> None:
        original(self, *arguments, **more)
        seen.append(self._get_action())

    monkeypatch.setattr(BaseResponse, "setup_class", setup_class)
    with faster_moto():
        assert len(list(answers())) == len(REQUESTS) + len(BATCHES)
    assert set(seen) <= {"CreateTable", "DescribeTable", "UpdateTimeToLive", "UpdateContinuousBackups"}


def test_accounts_and_regions_are_separate() -> None:
    with faster_moto(), mock_aws():
        for region in ("eu-west-1", "us-east-1"):
            client = boto3.client("dynamodb", region)
            create_table(client, "t")
            assert "Item" not in client.get_item(TableName="t", Key=KEY)
            client.put_item(TableName="t", Item=ITEM)


def test_moto_is_restored_afterwards() -> None:
    before = BotocoreStubber.process_request
    with faster_moto():
        assert BotocoreStubber.process_request is not before
    assert BotocoreStubber.process_request is before


def test_plain_moto_restores_moto_inside_the_shortcut() -> None:
    before = BotocoreStubber.process_request
    with faster_moto():
        faster = BotocoreStubber.process_request
        with plain_moto():
            assert BotocoreStubber.process_request is before
            with faster_moto():
                assert BotocoreStubber.process_request is not before
        assert BotocoreStubber.process_request not in (before, faster), "a new patch is made"
    assert BotocoreStubber.process_request is before
