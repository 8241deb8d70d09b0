"""Every alarm and graph uses a metric that a service reports, and every alarm is sent to the topic."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.infra.conftest import Synth
from tests.infra.emitted import OF_SERVICES, OwnMetrics, own_metrics
from tests.infra.physical import Physical

watched = pytest.mark.parametrize("env", ["dev", "all"])
QUERY = re.compile(r'SELECT SUM\((?P<name>\w+)\) FROM SCHEMA\("(?P<namespace>[\w/]+)", (?P<dimensions>[\w, ]+)\)')


@dataclass(frozen=True)
class Watched:
    """One metric of an alarm or a widget; `dimensions` with None as value: summed over all values."""

    where: str
    namespace: str
    name: str
    dimensions: Mapping[str, str | None]
    statistic: str


def of_alarms(account: Physical) -> Iterator[Watched]:
    for id, alarm in account.of_type("AWS::CloudWatch::Alarm").items():
        value = account.value(alarm)
        if "MetricName" in value:
            pairs = {one["Name"]: one["Value"] for one in value.get("Dimensions", ())}
            yield Watched(id, value["Namespace"], value["MetricName"], pairs, value["Statistic"])
        for query in value.get("Metrics", ()):
            yield of_query(id, query["Expression"])


def of_query(where: str, expression: str) -> Watched:
    found = QUERY.fullmatch(expression)
    assert found, f"{where}: what does {expression} watch?"
    return Watched(where, found["namespace"], found["name"], dict.fromkeys(found["dimensions"].split(", ")), "Sum")


def of_widgets(account: Physical) -> Iterator[Watched]:
    for widget in account.dashboard():
        default = widget["properties"].get("stat", "Average")
        for row in widget["properties"].get("metrics", ()):
            if isinstance(row[0], dict):  # an expression over the others
                continue
            *names, options = row if isinstance(row[-1], dict) else (*row, {})
            namespace, name, *pairs = names
            dimensions = dict(zip(pairs[::2], pairs[1::2], strict=True))
            yield Watched(widget["properties"]["title"], namespace, name, dimensions, options.get("stat", default))


def problem(watched: Watched, account: Physical, own: OwnMetrics) -> str | None:
    """The reason why this metric has no data, or the wrong data; empty if it is right."""
    if watched.namespace == own.namespace:
        if watched.name not in own.names:
            return "no Lambda of the engine writes it"
        return None if watched.dimensions == own.dimensions else f"it is written with {own.dimensions}"
    emitted = OF_SERVICES.get((watched.namespace, watched.name))
    if emitted is None:
        return "not in the table of what services report"
    if set(watched.dimensions) not in emitted.dimensions:
        return f"it is reported with {[sorted(one) for one in emitted.dimensions]}"
    if watched.statistic not in emitted.statistics:
        return f"{watched.statistic} says nothing of it: {sorted(emitted.statistics)}"
    wrong = [
        name for name, value in watched.dimensions.items() if value is not None and value not in named(account)[name]
    ]
    return f"nothing is called so: {wrong}" if wrong else None


def named(account: Physical) -> dict[str, set[str]]:
    """The possible values of a dimension: the names of the resources in the template."""
    (table,) = account.of_type("AWS::DynamoDB::Table").values()
    return {
        "FunctionName": set(account.of_type("AWS::Lambda::Function")),
        "QueueName": set(account.of_type("AWS::SQS::Queue")),
        "TableName": set(account.of_type("AWS::DynamoDB::Table")),
        "GlobalSecondaryIndexName": {index["IndexName"] for index in table["GlobalSecondaryIndexes"]},
        "ApiId": set(account.of_type("AWS::ApiGatewayV2::Api")),
        "Stage": {item["StageName"] for item in account.of_type("AWS::ApiGatewayV2::Stage").values()},
        "EventBusName": set(account.of_type("AWS::Events::EventBus")),
        "RuleName": set(account.of_type("AWS::Events::Rule")),
    }


def account(synth: Synth, env: str) -> Physical:
    return Physical(synth.templates[env].to_json())


@watched
def test_every_alarm_watches_a_metric_that_is_reported(synth: Synth, env: str) -> None:
    there, own = account(synth, env), own_metrics(env)
    found = list(of_alarms(there))
    assert {watched.where for watched in found} == set(there.of_type("AWS::CloudWatch::Alarm"))
    assert {f"{watched.where}: {watched.name}": why for watched in found if (why := problem(watched, there, own))} == {}


@watched
def test_every_graph_shows_a_metric_that_is_reported(synth: Synth, env: str) -> None:
    there, own = account(synth, env), own_metrics(env)
    found = list(of_widgets(there))
    assert {watched.where for watched in found} == {widget["properties"]["title"] for widget in there.dashboard()}
    assert {f"{watched.where}: {watched.name}": why for watched in found if (why := problem(watched, there, own))} == {}


@watched
def test_the_alarm_of_a_rule_has_the_dimension_of_the_bus(synth: Synth, env: str) -> None:
    there = account(synth, env)
    on_bus = {id: there.value(rule.get("EventBusName", "")) for id, rule in there.of_type("AWS::Events::Rule").items()}
    watched_rules = [alarm.dimensions for alarm in of_alarms(there) if alarm.namespace == "AWS/Events"]
    assert watched_rules
    for dimensions in watched_rules:
        rule = dimensions["RuleName"]
        assert rule is not None
        assert dimensions.get("EventBusName", "") == on_bus[rule]


def test_the_reference_to_a_rule_on_a_custom_bus_is_not_the_rule_s_name(synth: Synth) -> None:
    there = account(synth, "dev")
    (rule,) = [id for id, item in there.of_type("AWS::Events::Rule").items() if "EventBusName" in item]
    (bus,) = there.of_type("AWS::Events::EventBus")
    assert there.value({"Ref": rule}) == f"{bus}|{rule}"
    assert problem(
        Watched("", "AWS/Events", "FailedInvocations", {"EventBusName": bus, "RuleName": f"{bus}|{rule}"}, "Sum"),
        there,
        OwnMetrics(frozenset(), "Stepwell", {}),
    )


@watched
def test_missing_data_is_an_alarm_only_for_tick(synth: Synth, env: str) -> None:
    silent = {
        alarm["MetricName"]
        for alarm in synth.resources(env, "AWS::CloudWatch::Alarm").values()
        if alarm["TreatMissingData"] != "notBreaching"
    }
    assert silent == {"Invocations"}  # of tick, which runs every minute


@watched
def test_the_alarm_on_missing_data_waits_for_the_first_possible_data(synth: Synth, env: str) -> None:
    (alarm,) = [
        resource
        for resource in synth.resources(env, "AWS::CloudWatch::Alarm").values()
        if resource["TreatMissingData"] == "breaching"
    ]
    assert alarm["EvaluationPeriods"] * alarm["Period"] >= 600


@watched
def test_every_alarm_reaches_a_topic_that_cloudwatch_may_publish_to(synth: Synth, env: str) -> None:
    there = account(synth, env)
    (topic,) = [there.arn(id) for id in there.of_type("AWS::SNS::Topic")]
    for alarm in there.of_type("AWS::CloudWatch::Alarm").values():
        assert there.value(alarm["AlarmActions"]) == [topic]
        assert alarm.get("ActionsEnabled", True) is True
    statements = [
        there.value(statement)
        for policy in there.of_type("AWS::SNS::TopicPolicy").values()
        for statement in policy["PolicyDocument"]["Statement"]
    ]
    (allowed,) = [statement for statement in statements if statement["Effect"] == "Allow"]
    assert allowed["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert (allowed["Action"], allowed["Resource"]) == ("sns:Publish", topic)
    emails = [item["Endpoint"] for item in there.of_type("AWS::SNS::Subscription").values()]
    email = synth.settings[env].alarm_email
    assert emails == ([email] if email else [])
    assert {there.value(item["TopicArn"]) for item in there.of_type("AWS::SNS::Subscription").values()} <= {topic}


def test_the_synthesis_warns_if_no_address_for_alarms_is_set(synth: Synth) -> None:
    def warnings(env: str) -> str:
        metadata = json.loads((synth.folder / f"Stepwell-{env}.metadata.json").read_text())
        return json.dumps(
            [entry for entries in metadata.values() for entry in entries if entry["type"] == "aws:cdk:warning"]
        )

    assert "Alarms are sent to nobody" in warnings("dev")
    assert "Alarms are sent to nobody" not in warnings("all")
    assert "Alarms are sent to nobody" not in warnings("bare")


def test_dashboards_do_not_use_the_shorthand_for_metrics(synth: Synth) -> None:
    """These tests do not support CloudWatch's shorthand `.` for "as above"."""
    rows: list[Any] = [
        row for widget in account(synth, "dev").dashboard() for row in widget["properties"].get("metrics", ())
    ]
    assert rows
    assert not [row for row in rows if "." in row]
