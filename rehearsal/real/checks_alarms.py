"""Alarms reach their topic and watch existing metrics; queues accept messages only from their rules."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from typing import Any

from rehearsal.real.account import Account, Json
from rehearsal.real.checks import Failed, Skipped, check

KINDS = ("DeadLetters", "Errors", "FailedInvocations", "ThrottleEvents", "ApiFails", "stepAnswers", "tickMissing")
"""A part of the name of each kind of alarm."""


def alarms(account: Account) -> list[Json]:
    """The environment's alarms, as CloudWatch describes them. Raises Skipped."""
    names = account.made("AWS::CloudWatch::Alarm")
    if not names:
        raise Skipped("this environment has no alarms; deploy it with -c alarms=true")
    client = account.client("cloudwatch")
    pages = [client.describe_alarms(AlarmNames=names[first : first + 100]) for first in range(0, len(names), 100)]
    return [alarm for page in pages for alarm in page["MetricAlarms"]]


@check("An alarm of each kind publishes to its topic", seconds=30, usd=0.001)
def alarms_publish(account: Account) -> str:
    client, published = account.client("cloudwatch"), []
    names = [alarm["AlarmName"] for alarm in alarms(account)]
    for kind in KINDS:
        name = next((candidate for candidate in names if kind in candidate), None)
        if name is None:
            continue
        began = datetime.now(UTC)
        _ring(account, name)
        actions = account.until(f"{name} has acted", partial(_actions, client, name, began), within_s=60)
        if failed := [action for action in actions if "Successfully executed" not in action["HistorySummary"]]:
            raise Failed(f"{name}: {failed[0]['HistorySummary']}; check the policies of the topic and of the KMS key")
        published.append(name)
    return f"{len(published)} alarms published"


def _ring(account: Account, name: str) -> None:
    """Sets an alarm off. CloudWatch resets it at the next evaluation, and so does the end of the check."""
    states = {"OK": "the check is over", "ALARM": "a check of Stepwell"}
    client = account.client("cloudwatch")
    account.cleanup.callback(client.set_alarm_state, AlarmName=name, StateValue="OK", StateReason=states["OK"])
    for state in states:  # only a change of state acts
        client.set_alarm_state(AlarmName=name, StateValue=state, StateReason=states[state])


def _actions(client: Any, name: str, since: datetime) -> list[Json]:
    found = client.describe_alarm_history(AlarmName=name, HistoryItemType="Action", StartDate=since, MaxRecords=1)
    items: list[Json] = found["AlarmHistoryItems"]
    return items


@check("The alarms' topic has a confirmed subscription", seconds=1)
def the_topic_has_a_subscriber(account: Account) -> str:
    alarms(account)
    (topic,) = account.made("AWS::SNS::Topic")
    found = account.client("sns").list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    items = [item["Endpoint"] for item in found if item["SubscriptionArn"] != "PendingConfirmation"]
    if not items:
        raise Failed("no subscription is confirmed; deploy with -c alarm_email=<address> and confirm the mail")
    return ", ".join(items)


@check("Metrics that any traffic produces exist, under the dimensions of their alarms", seconds=5)
def alarms_watch_existing_metrics(account: Account) -> str:
    client, found, silent = account.client("cloudwatch"), 0, []
    for alarm in alarms(account):
        if alarm.get("MetricName") not in ("Invocations", "Errors", "Throttles", "ApproximateAgeOfOldestMessage"):
            continue  # the other metrics are written only after an error
        wanted = {item["Name"]: item["Value"] for item in alarm["Dimensions"]}
        listed = client.list_metrics(
            Namespace=alarm["Namespace"], MetricName=alarm["MetricName"], Dimensions=alarm["Dimensions"]
        )["Metrics"]
        if any({item["Name"]: item["Value"] for item in metric["Dimensions"]} == wanted for metric in listed):
            found += 1
        elif "register" not in alarm["AlarmName"] and "step_http" not in alarm["AlarmName"]:
            silent.append(alarm["AlarmName"])
    if silent:
        raise Failed(f"no data yet for {', '.join(silent)}; send some events, wait 15 minutes, and check again")
    return f"{found} alarms have data"


@check("Alarms on rules use the names that EventBridge has, not CloudFormation's ids", seconds=2)
def rules_are_watched(account: Account) -> str:
    events, rules = account.client("events"), []
    for alarm in alarms(account):
        dimensions = {item["Name"]: item["Value"] for item in alarm.get("Dimensions", ())}
        if rule := dimensions.get("RuleName"):
            bus = {"EventBusName": dimensions["EventBusName"]} if "EventBusName" in dimensions else {}
            events.describe_rule(Name=rule, **bus)  # raises if there is no such rule
            rules.append(rule)
    return f"{len(rules)} alarms watch {len(set(rules))} rules"


@check("Queues accept messages from EventBridge only by their own rules", seconds=2)
def queues_take_from_their_rules(account: Account) -> str:
    sqs, allowed = account.client("sqs"), []
    for queue in account.made("AWS::SQS::Queue"):
        policy = json.loads(sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["Policy"])["Attributes"]["Policy"])
        for statement in policy["Statement"]:
            if statement["Effect"] == "Allow":
                if "aws:SourceArn" not in json.dumps(statement.get("Condition", {})):
                    raise Failed(f"{queue} allows {statement['Principal']} without a rule's ARN; deploy this version")
                allowed.append(queue)
    return f"{len(allowed)} permissions, each for one rule"


@check("The engine's Lambdas have the recursion setting and the reserved instances of the template", seconds=3)
def lambdas_are_as_deployed(account: Account) -> str:
    client, reserved = account.client("lambda"), {}
    for name in ("ingest", "api", "route", "advance", "tick"):
        function = account.engine_lambda(name)
        if (loop := client.get_function_recursion_config(FunctionName=function)["RecursiveLoop"]) != "Allow":
            raise Failed(f"Lambda would stop {name} in a long run: RecursiveLoop is {loop}; deploy again")
        found = client.get_function_concurrency(FunctionName=function).get("ReservedConcurrentExecutions")
        reserved[name] = "none" if found is None else str(found)
    limit = client.get_account_settings()["AccountLimit"]["ConcurrentExecutions"]
    return f"limit {limit}; reserved: " + ", ".join(f"{name} {count}" for name, count in reserved.items())
