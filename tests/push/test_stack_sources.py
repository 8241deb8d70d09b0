"""Sources in a stack: event source mappings, the Lambda, and what it may do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_kinesis as kinesis
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sqs as sqs
from aws_cdk.assertions import Template
from aws_cdk.aws_lambda_event_sources import KinesisEventSource, ManagedKafkaEventSource, SqsEventSource

from stepwell.cdk import Source

CLUSTER = "arn:aws:kafka:us-east-1:123456789012:cluster/shop/6357e0b2-0e6a-4b86-a0b4-70df934c2e31-5"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("sources")
    file = folder / "orders.json"
    file.write_text(json.dumps({"type": "sqs", "queue": "orders", "event": "order/{{ body.kind }}", "user": "key"}))
    stack = cdk.Stack(cdk.App(outdir=str(folder / "out")), "Mine")
    queue, stream = sqs.Queue(stack, "Queue"), kinesis.Stream(stack, "Stream")
    of_queue = SqsEventSource(queue, batch_size=10, report_batch_item_failures=True)
    Source(stack, "Orders", env="prod", file=file, reads=of_queue)
    latest = lambda_.StartingPosition.LATEST
    others = [
        KinesisEventSource(stream, starting_position=latest, report_batch_item_failures=True),
        ManagedKafkaEventSource(cluster_arn=CLUSTER, topic="orders", starting_position=latest),
    ]
    Source(stack, "Others", env="prod", rule={"name": "others", "event": "order/any"}, reads=others)
    return Template.from_stack(stack).to_json()["Resources"]


def of(resources: Any, kind: str) -> list[Any]:
    return [item["Properties"] for item in resources.values() if item["Type"] == kind]


def test_each_source_has_a_lambda_with_its_rule(template: Any) -> None:
    functions = of(template, "AWS::Lambda::Function")
    rules = {json.loads(f["Environment"]["Variables"]["STEPWELL_SOURCE"])["name"]: f for f in functions}
    assert set(rules) == {"orders", "others"}
    orders = json.loads(rules["orders"]["Environment"]["Variables"]["STEPWELL_SOURCE"])
    assert orders == {"name": "orders", "type": "sqs", "event": "order/{{ body.kind }}", "user": "key"}
    assert {f["Handler"] for f in functions} == {"stepwell.aws.api.source_handler.handler"}


def test_mappings_report_single_failures_where_lambda_allows_it(template: Any) -> None:
    mappings = of(template, "AWS::Lambda::EventSourceMapping")
    single = [m for m in mappings if m.get("FunctionResponseTypes") == ["ReportBatchItemFailures"]]
    assert (len(mappings), len(single)) == (3, 2)
    (kafka,) = [m for m in mappings if m["EventSourceArn"] == CLUSTER]
    assert kafka["Topics"] == ["orders"]


def test_the_lambda_may_only_send_read_types_and_use_its_queues(template: Any) -> None:
    statements = [s for policy in of(template, "AWS::IAM::Policy") for s in policy["PolicyDocument"]["Statement"]]
    actions = {
        action for s in statements for action in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])
    }
    assert {"events:PutEvents", "dynamodb:GetItem", "sqs:SendMessage", "sqs:ReceiveMessage"} <= actions
    assert not [action for action in actions if action.endswith(":*") or action.startswith("dynamodb:Put")]


def test_the_logs_are_kept_for_a_month_and_deleted_with_the_stack(template: Any) -> None:
    groups = {name: item for name, item in template.items() if item["Type"] == "AWS::Logs::LogGroup"}
    assert {item["DeletionPolicy"] for item in groups.values()} == {"Delete"}
    assert {item["Properties"]["RetentionInDays"] for item in groups.values()} == {30}
    used = {f["LoggingConfig"]["LogGroup"]["Ref"] for f in of(template, "AWS::Lambda::Function")}
    assert used == set(groups)


def test_a_source_needs_one_rule(tmp_path: Path) -> None:
    stack = cdk.Stack(cdk.App(outdir=str(tmp_path)), "Mine")
    with pytest.raises(ValueError, match="either the file of a source, or a rule"):
        Source(stack, "Orders", env="prod", reads=SqsEventSource(sqs.Queue(stack, "Queue")))
