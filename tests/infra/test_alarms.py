"""Alarms cover everything that can be lost, late or rejected."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from infra.dashboard import EVENTS_METRIC, INVALID_METRIC, LAG_METRIC, RUN_METRICS, STEP_METRIC
from stepwell.aws.observability import NAMESPACE
from stepwell.aws.queues.redelivery import STUCK
from stepwell.aws.topology import FUNCTIONS
from stepwell.core.run.run import RunStatus
from tests.infra.conftest import Synth
from tests.infra.test_stack import references

watched = pytest.mark.parametrize("env", ["dev", "all"])


def watches(synth: Synth, env: str, metric: str) -> set[str]:
    """The logical ids of resources with an alarm on a metric; `everything` for an alarm over all Lambdas."""
    found: set[str] = set()
    for alarm in synth.resources(env, "AWS::CloudWatch::Alarm").values():
        if alarm.get("MetricName") == metric:
            found |= {name for dimension in alarm["Dimensions"] for name in references(dimension["Value"])}
        if f"SUM({metric})" in str(alarm.get("Metrics")):
            found.add("everything")
    return found


def logical_ids(synth: Synth, env: str, handlers: set[str]) -> set[str]:
    lambdas = synth.resources(env, "AWS::Lambda::Function")
    return {name for name, item in lambdas.items() if item["Handler"] in handlers}


@watched
def test_every_queue_is_watched(synth: Synth, env: str) -> None:
    queues = synth.resources(env, "AWS::SQS::Queue")
    dead_letters = {name for queue in queues.values() for name in references(queue.get("RedrivePolicy", {}))}
    assert watches(synth, env, "ApproximateNumberOfMessagesVisible") == dead_letters
    assert watches(synth, env, "ApproximateAgeOfOldestMessage") == set(queues) - dead_letters


@watched
def test_every_lambda_is_watched(synth: Synth, env: str) -> None:
    of_engine = logical_ids(synth, env, {f"lambdas.{function.name}.handler" for function in FUNCTIONS})
    assert len(of_engine) == len(FUNCTIONS)
    assert watches(synth, env, "Errors") == of_engine
    assert watches(synth, env, "Throttles") == of_engine
    assert watches(synth, env, "Invocations") == logical_ids(synth, env, {"lambdas.tick.handler"})


@watched
def test_every_asynchronous_path_is_watched(synth: Synth, env: str) -> None:
    step_http = logical_ids(synth, env, {"lambdas.step_http.handler"})
    assert watches(synth, env, "DestinationDeliveryFailures") == {*step_http, "everything"}
    assert watches(synth, env, "RecursiveInvocationsDropped") == {"everything"}
    rules = synth.resources(env, "AWS::Events::Rule")
    handed_over = {name for name, item in rules.items() if "DeadLetterConfig" in item["Targets"][0]}
    for metric in ("FailedInvocations", "InvocationsFailedToBeSentToDlq"):
        assert watches(synth, env, metric) >= handed_over


@watched
def test_throttling_of_the_table_raises_an_alarm(synth: Synth, env: str) -> None:
    table = set(synth.resources(env, "AWS::DynamoDB::Table"))
    assert watches(synth, env, "ReadThrottleEvents") == watches(synth, env, "WriteThrottleEvents") == table
    alarms = synth.resources(env, "AWS::CloudWatch::Alarm").values()
    indexes = ["GlobalSecondaryIndexName" in str(alarm) for alarm in alarms if "Throttle" in alarm.get("MetricName", "")
               and alarm["Namespace"] == "AWS/DynamoDB"]  # fmt: skip
    assert sorted(indexes) == [False, False, True, True]


@watched
def test_repeatedly_failing_messages_raise_an_alarm_long_before_they_are_dead_letters(synth: Synth, env: str) -> None:
    (alarm,) = [
        resource
        for resource in synth.resources(env, "AWS::CloudWatch::Alarm").values()
        if resource.get("MetricName") == STUCK
    ]
    dimensions = {dimension["Name"]: dimension["Value"] for dimension in alarm["Dimensions"]}
    assert (alarm["Namespace"], dimensions["env"]) == (NAMESPACE, synth.settings[env].env)


@watched
def test_invalid_events_raise_an_alarm(synth: Synth, env: str) -> None:
    (alarm,) = [
        resource
        for resource in synth.resources(env, "AWS::CloudWatch::Alarm").values()
        if resource.get("MetricName") == INVALID_METRIC
    ]
    dimensions = {dimension["Name"]: dimension["Value"] for dimension in alarm["Dimensions"]}
    assert (alarm["Namespace"], dimensions["env"]) == (NAMESPACE, synth.settings[env].env)
    (dashboard,) = synth.resources("dev", "AWS::CloudWatch::Dashboard").values()
    assert f'"{INVALID_METRIC}"' in str(dashboard)


@watched
def test_every_alarm_is_sent_to_the_topic_and_has_a_description(synth: Synth, env: str) -> None:
    (topic,) = synth.resources(env, "AWS::SNS::Topic")
    for alarm in synth.resources(env, "AWS::CloudWatch::Alarm").values():
        assert references(alarm["AlarmActions"]) == {topic}
        assert alarm["AlarmDescription"]
    subscriptions = [resource["Endpoint"] for resource in synth.resources(env, "AWS::SNS::Subscription").values()]
    assert subscriptions == ([synth.settings[env].alarm_email] if synth.settings[env].alarm_email else [])


def test_alarms_and_the_dashboard_can_be_turned_off(synth: Synth) -> None:
    for kind in ("AWS::CloudWatch::Alarm", "AWS::SNS::Topic", "AWS::CloudWatch::Dashboard"):
        assert synth.resources("bare", kind) == {}
        assert synth.resources("dev", kind) != {}


def test_the_dashboard_shows_metrics_that_the_engine_writes(synth: Synth) -> None:
    sources = Path(__file__).parents[2] / "stepwell" / "aws"
    written = "\n".join(file.read_text() for file in sources.rglob("*.py"))
    for call in (f'duration("{STEP_METRIC}"', f'duration("{LAG_METRIC}"'):
        assert call in written
    for metric in (EVENTS_METRIC, INVALID_METRIC):
        assert f'count("{metric}"' in written
    assert 'count(f"Runs{' in written
    assert set(RUN_METRICS) == {
        f"Runs{status.name.capitalize()}" for status in RunStatus if status is not RunStatus.RUNNING
    }


def test_the_dashboard_s_expressions_use_exactly_their_metrics(synth: Synth) -> None:
    (dashboard,) = synth.resources("dev", "AWS::CloudWatch::Dashboard").values()
    body = json.loads(
        "".join(part if isinstance(part, str) else "x" for part in dashboard["DashboardBody"]["Fn::Join"][1])
    )
    metrics = [row for widget in body["widgets"] for row in widget["properties"].get("metrics", ())]
    (expression,) = [row[0]["expression"] for row in metrics if isinstance(row[0], dict)]
    named: set[Any] = {row[-1].get("id") for row in metrics if isinstance(row[-1], dict)}
    assert set(re.findall(r"\bm\d+\b", expression)) <= named
