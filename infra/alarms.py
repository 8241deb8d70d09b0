"""CloudWatch alarms on failures that would otherwise go unnoticed: lost, late and rejected messages.

Every queue has an alarm on dead letters and one on lag. Every asynchronous path has one on failed deliveries.

An alarm must use exactly the dimensions with which the service reports the metric: CloudWatch accepts any others, but
then never finds data. `tests/infra/emitted.py` has the list.
"""

from __future__ import annotations

from collections.abc import Mapping

from aws_cdk import Annotations, Aws, Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
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
from stepwell.aws.observability import NAMESPACE
from stepwell.aws.queues.redelivery import STUCK
from stepwell.aws.table.keys import STATUS_INDEX

LATE = {"events": Duration.minutes(5), "outcomes": Duration.minutes(20)}
"""The age of a queue's oldest message that raises an alarm. Timers wait in `outcomes` for up to 14 minutes, so that is
not late."""
FIVE_MINUTES = Duration.minutes(5)


class Alarms(Construct):
    def __init__(
        self, scope: Construct, settings: Settings, queues: Queues, state: State, functions: Functions
    ) -> None:
        super().__init__(scope, "Alarms")
        self.topic = self._topic(settings)
        self._queues(queues)
        self._functions(functions.by_name)
        self._deliveries(functions.by_name["step_http"])
        self._alarm(
            "loopsStopped",
            _sum_of_all_lambdas("RecursiveInvocationsDropped"),
            text="Lambda stopped a chain of invocations in this account and region, as a supposed endless loop",
        )
        self._table(state.table)
        if settings.metrics:
            self._own(settings)

    def _own(self, settings: Settings) -> None:
        """Alarms on the metrics that the engine writes itself."""
        dimensions = {"env": settings.env, "service": SERVICE}
        self._alarm(
            "messagesStuck",
            _sum(NAMESPACE, STUCK, dimensions),
            text="a message has failed repeatedly for minutes; the log of route or advance has the message and error",
        )
        self._alarm(
            "eventsInvalid",
            _sum(NAMESPACE, INVALID_METRIC, dimensions),
            text="events did not match their schemas; `stepwell/event.invalid` has each event and the errors",
        )

    def _topic(self, settings: Settings) -> sns.Topic:
        """The topic of all alarms.

        With `enforce_ssl` the topic has a custom policy, which replaces the default policy of SNS. So CloudWatch needs
        an explicit permission: https://docs.aws.amazon.com/sns/latest/dg/sns-access-policy-use-cases.html
        """
        topic = sns.Topic(
            self,
            "Topic",
            enforce_ssl=True,
            display_name=f"Stepwell {settings.env}",
            master_key=key_of(self, settings),
        )
        alarms = f"arn:{Aws.PARTITION}:cloudwatch:{Aws.REGION}:{Aws.ACCOUNT_ID}:alarm:*"
        topic.add_to_resource_policy(
            iam.PolicyStatement(
                sid="Alarms",
                principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
                actions=["sns:Publish"],
                resources=[topic.topic_arn],
                conditions={
                    "StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID},
                    "ArnLike": {"aws:SourceArn": alarms},
                },
            )
        )
        if settings.alarm_email:
            topic.add_subscription(subscriptions.EmailSubscription(settings.alarm_email))
        else:
            Annotations.of(self).add_warning_v2(
                "stepwell:alarm_email",
                "Alarms are sent to nobody: set -c alarm_email=<address>, subscribe to the topic yourself,"
                " or turn the alarms off with -c alarms=false.",
            )
        return topic

    def watch_bus(self, bus: Bus, rules: Mapping[str, events.Rule]) -> None:
        """Alarms on events that a rule could not send to the queue, or not even to the dead-letter queue."""
        for name, rule in rules.items():
            dimensions = bus.metric_dimensions(rule)
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
                text=f"messages of the queue {name} could not be handled; they are in the dead-letter queue",
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
            periods=2,  # the first period after a deployment begins before tick does
        )

    def _deliveries(self, step_http: lambda_.Function) -> None:
        """Alarms on outcomes that did not reach `outcomes`. Step Lambdas come and go, so there is one alarm on the sum
        over all Lambdas in the account and region."""
        metric = "DestinationDeliveryFailures"
        self._alarm(
            "stepHttpAnswers",
            _sum("AWS/Lambda", metric, {"FunctionName": step_http.function_name}),
            text="results of http steps did not reach the queue outcomes",
        )
        self._alarm(
            "stepAnswers",
            _sum_of_all_lambdas(metric),
            text="results of some Lambda in this account and region did not reach their destination",
        )

    def _table(self, table: dynamodb.ITable) -> None:
        """Alarms on throttling. Throttling of an index does not count for the table, so both have alarms."""
        table_alone = {"TableName": table.table_name}
        for name, dimensions in (
            ("table", table_alone),
            ("index", {**table_alone, "GlobalSecondaryIndexName": STATUS_INDEX}),
        ):
            for metric in ("ReadThrottleEvents", "WriteThrottleEvents"):
                self._alarm(
                    f"{name}{metric}",
                    _sum("AWS/DynamoDB", metric, dimensions),
                    text=f"the {name} throttles requests; many requests for one key may be the cause",
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


def _sum_of_all_lambdas(name: str) -> cloudwatch.MathExpression:
    """The sum of a metric over all Lambdas, by a Metrics Insights query.

    AWS documents that Lambda reports metrics without a dimension too, but not for which metrics. CloudWatch bills a
    query as one alarm for each metric that it finds. That is cheap: only Lambdas with such a failure report the metric.
    https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-view.html
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Create_Metrics_Insights_Alarm.html
    """
    return cloudwatch.MathExpression(
        expression=f'SELECT SUM({name}) FROM SCHEMA("AWS/Lambda", FunctionName)', using_metrics={}, period=FIVE_MINUTES
    )


def _sum(namespace: str, name: str, dimensions: Mapping[str, str]) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace=namespace,
        metric_name=name,
        dimensions_map=dict(dimensions) or None,
        statistic="Sum",
        period=FIVE_MINUTES,
    )
