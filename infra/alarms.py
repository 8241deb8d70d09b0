"""Alarms on what nobody would notice otherwise: what was lost, what is late, what is refused.

One rule: every queue has an alarm on its dead letters and one on its lag, and every asynchronous path one on what could
not be delivered.
"""

from __future__ import annotations

from collections.abc import Mapping

from aws_cdk import (
    Duration,
)
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_events as events
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from infra.bus import Bus
from infra.dashboard import INVALID_METRIC, SERVICE
from infra.functions import Functions
from infra.ingest import Ingest
from infra.key import key_of
from infra.queues import Queues
from infra.settings import Settings
from infra.state import State
from stepwell.aws.observe import NAMESPACE
from stepwell.aws.redelivery import STUCK

LATE = {"events": Duration.minutes(5), "outcomes": Duration.minutes(20)}
"""How old a message may get. Timers of up to 14 minutes stand in `outcomes`, and are no delay."""
FIVE_MINUTES = Duration.minutes(5)


class Alarms(Construct):
    def __init__(
        self, scope: Construct, settings: Settings, queues: Queues, state: State, functions: Functions
    ) -> None:
        super().__init__(scope, "Alarms")
        self.topic = sns.Topic(
            self,
            "Topic",
            enforce_ssl=True,
            display_name=f"Stepwell {settings.env}",
            master_key=key_of(self, settings),
        )
        if settings.alarm_email:
            self.topic.add_subscription(subscriptions.EmailSubscription(settings.alarm_email))
        self._queues(queues)
        self._alarm(
            "messagesStuck",
            _sum(NAMESPACE, STUCK, {"env": settings.env, "service": SERVICE}),
            text="a message fails again and again, for minutes; route's or advance's log says which, and why",
        )
        self._functions(functions.by_name)
        self._deliveries(functions.by_name["step_http"])
        self._alarm(
            "loopsStopped",
            _sum("AWS/Lambda", "RecursiveInvocationsDropped", {}),
            text="Lambda took a round of some Lambda in this account and region for endless, and stopped it",
        )
        self._table(state.table)
        self._alarm(
            "eventsInvalid",
            _sum(NAMESPACE, INVALID_METRIC, {"env": settings.env, "service": SERVICE}),
            text="events were not as their types say; what `stepwell/event.invalid` tells says which, and why",
        )

    def watch_bus(self, bus: Bus, rules: Mapping[str, events.Rule]) -> None:
        """What the rules could not hand over to their queues, not even to the dead letters."""
        for name, rule in rules.items():
            dimensions = {"RuleName": rule.rule_name}
            if rule is bus.rule:
                dimensions["EventBusName"] = bus.bus.event_bus_name
            for metric in ("FailedInvocations", "InvocationsFailedToBeSentToDlq"):
                self._alarm(
                    f"{name}{metric}",
                    _sum("AWS/Events", metric, dimensions),
                    text=f"events of the rule {name} were lost",
                )

    def watch_api(self, ingest: Ingest) -> None:
        dimensions = {"ApiId": ingest.api.api_id}
        self._alarm("ApiFails", _sum("AWS/ApiGateway", "5xx", dimensions), text="the API answers with 5xx", above=5)

    def _queues(self, queues: Queues) -> None:
        for name, pair in queues.all.items():
            self._alarm(
                f"{name}DeadLetters",
                pair.dead_letters.metric_approximate_number_of_messages_visible(
                    period=Duration.minutes(1), statistic="Maximum"
                ),
                text=f"messages of the queue {name} could not be handled; they stand in its dead-letter queue",
            )
            self._alarm(
                f"{name}Late",
                pair.queue.metric_approximate_age_of_oldest_message(period=Duration.minutes(1), statistic="Maximum"),
                text=f"messages of the queue {name} wait too long",
                above=int(LATE[name].to_seconds()),
                periods=3,
            )

    def _functions(self, by_name: Mapping[str, lambda_.Function]) -> None:
        for name, function in by_name.items():
            errors = function.metric_errors(period=FIVE_MINUTES)
            throttles = function.metric_throttles(period=FIVE_MINUTES)
            self._alarm(f"{name}Errors", errors, text=f"the Lambda {name} fails")
            self._alarm(f"{name}Throttles", throttles, text=f"the Lambda {name} is throttled", periods=3)
        self._alarm(
            "tickMissing",
            by_name["tick"].metric_invocations(period=FIVE_MINUTES),
            text="tick does not run: no cron trigger and no timer over 14 minutes fires",
            below=1,
        )

    def _deliveries(self, step_http: lambda_.Function) -> None:
        """The Lambdas of steps come and go, so that theirs is the metric of all Lambdas in the account and region."""
        metric = "DestinationDeliveryFailures"
        self._alarm(
            "stepHttpAnswers",
            _sum("AWS/Lambda", metric, {"FunctionName": step_http.function_name}),
            text="answers of http steps did not reach the queue outcomes",
        )
        self._alarm(
            "stepAnswers",
            _sum("AWS/Lambda", metric, {}),
            text="answers of some Lambda in this account and region did not reach its destination",
        )

    def _table(self, table: dynamodb.ITable) -> None:
        dimensions = {"TableName": table.table_name}
        for metric in ("ReadThrottleEvents", "WriteThrottleEvents"):
            self._alarm(
                f"table{metric}",
                _sum("AWS/DynamoDB", metric, dimensions),
                text="the table throttles: are many requests about one key?",
                periods=3,
            )

    def _alarm(
        self,
        id: str,
        metric: cloudwatch.IMetric,
        *,
        text: str,
        above: int = 0,
        below: int | None = None,
        periods: int = 1,
    ) -> None:
        operators, missing = cloudwatch.ComparisonOperator, cloudwatch.TreatMissingData
        alarm = cloudwatch.Alarm(
            self,
            id,
            metric=metric,
            alarm_description=text,
            threshold=above if below is None else below,
            comparison_operator=(operators.GREATER_THAN_THRESHOLD if below is None else operators.LESS_THAN_THRESHOLD),
            evaluation_periods=periods,
            treat_missing_data=missing.NOT_BREACHING if below is None else missing.BREACHING,
        )
        alarm.add_alarm_action(actions.SnsAction(self.topic))


def _sum(namespace: str, name: str, dimensions: Mapping[str, str]) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace=namespace,
        metric_name=name,
        dimensions_map=dict(dimensions) or None,
        statistic="Sum",
        period=FIVE_MINUTES,
    )
