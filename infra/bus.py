"""EventBridge: the environment's bus feeds the queue `events`; ECS events on the default bus feed `outcomes`.

Buses send to queues, never to Lambdas. Events that cannot be delivered go to the queue's dead-letter queue, and a
redrive moves them to the queue. The policy of each queue allows exactly the rules that send to it.
"""

from __future__ import annotations

from typing import cast

import jsii
from aws_cdk import Aws, Duration, Fn
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.queues import Queues
from infra.settings import Settings
from stepwell.aws.steps.dispatch import SOURCE
from stepwell.cdk.queue import DurableQueue

TRIED_FOR = Duration.hours(24)
MOST_RETRIES = 185


class Bus(Construct):
    def __init__(self, scope: Construct, settings: Settings, queues: Queues) -> None:
        super().__init__(scope, "Bus")
        self._queues = queues
        self.bus = events.EventBus(self, "Bus", description=f"Events of Stepwell {settings.env}")
        everything = events.EventPattern(source=events.Match.prefix(""))
        # Without the engine's own events: the engine accepts those directly, if they start or resume a function.
        not_from_engine = events.EventPattern(source=events.Match.anything_but(SOURCE))
        self.rule = events.Rule(self, "ToEvents", event_bus=self.bus, event_pattern=not_from_engine)
        self.rule.add_target(_target(queues.events))
        if settings.archive_days:
            self.bus.archive("Archive", event_pattern=everything, retention=Duration.days(settings.archive_days))

    def watch_containers(self, cluster_arn: str) -> events.Rule:
        """A rule that sends an event to `outcomes` when a task of the cluster stops. ECS puts these events on the
        account's default bus only."""
        rule = events.Rule(
            self,
            "ContainersStopped",
            event_pattern=events.EventPattern(
                source=["aws.ecs"],
                detail_type=["ECS Task State Change"],
                account=[Aws.ACCOUNT_ID],
                detail={"clusterArn": [cluster_arn], "lastStatus": ["STOPPED"]},
            ),
        )
        rule.add_target(_target(self._queues.outcomes))
        return rule

    def metric_dimensions(self, rule: events.Rule) -> dict[str, str]:
        """The dimensions of a rule's metrics. They include the bus, unless it is the account's default bus.

        `Ref` of a rule on a custom bus is `bus|rule`, which is not the RuleName in metrics. So the name is taken from
        the ARN, which has a documented format:
        https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazoneventbridge.html
        """
        if rule is not self.rule:
            return {"RuleName": rule.rule_name}
        name = Fn.select(2, Fn.split("/", rule.rule_arn))  # arn:...:rule/<bus>/<rule>
        return {"EventBusName": self.bus.event_bus_name, "RuleName": name}


@jsii.implements(events.IRuleTarget)
class QueueTarget:
    """A queue as the target of a rule. After a day of retries the event goes to the queue's dead-letter queue.

    CDK's own target omits the condition `aws:SourceArn` for queues that are encrypted with a KMS key, or, with a
    feature flag, uses the account instead. This target always names the rule.
    https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-resource-based.html
    """

    def __init__(self, queue: DurableQueue) -> None:
        self._queue = queue

    def bind(self, rule: events.IRule, _id: str | None = None) -> events.RuleTargetConfig:
        for queue in (self._queue.queue, self._queue.dead_letters):
            _let_in(queue, rule)
        return events.RuleTargetConfig(
            arn=self._queue.queue.queue_arn,
            dead_letter_config=events.CfnRule.DeadLetterConfigProperty(arn=self._queue.dead_letters.queue_arn),
            retry_policy=events.CfnRule.RetryPolicyProperty(
                maximum_event_age_in_seconds=int(TRIED_FOR.to_seconds()), maximum_retry_attempts=MOST_RETRIES
            ),
        )


def _target(queue: DurableQueue) -> events.IRuleTarget:
    return cast(events.IRuleTarget, QueueTarget(queue))  # the type of what `bind` gets differs among CDK's versions


def _let_in(queue: sqs.Queue, rule: events.IRule) -> None:
    queue.add_to_resource_policy(
        iam.PolicyStatement(
            sid=f"Rule{rule.node.id}",
            principals=[iam.ServicePrincipal("events.amazonaws.com")],
            actions=["sqs:SendMessage"],
            resources=[queue.queue_arn],
            conditions={"ArnEquals": {"aws:SourceArn": rule.rule_arn}},
        )
    )
