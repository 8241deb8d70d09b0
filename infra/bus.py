"""Events: the environment's own bus feeds `events`, and ECS' news on the account's default bus feed `outcomes`.

One rule: a bus hands over to queues, never to Lambdas, and what it cannot hand over goes to the queue's dead letters,
from where a redrive brings it to the queue. Each queue lets in exactly the rules that send to it.
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
        # The engine's own events are for others: what starts or wakes a function here, the engine takes by itself.
        others = events.EventPattern(source=events.Match.anything_but(SOURCE))
        self.rule = events.Rule(self, "ToEvents", event_bus=self.bus, event_pattern=others)
        self.rule.add_target(_target(queues.events))
        if settings.archive_days:
            self.bus.archive("Archive", event_pattern=everything, retention=Duration.days(settings.archive_days))

    def watch_containers(self, cluster_arn: str) -> events.Rule:
        """Tell `outcomes` when a task of the cluster has stopped: ECS says so on the default bus alone."""
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
        """The dimensions under which EventBridge reports a rule: with the bus, unless that is the account's default.

        `Ref` of a rule on a bus of one's own is `bus|rule`, which no metric has as its RuleName. The ARN is documented:
        https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazoneventbridge.html
        """
        if rule is not self.rule:
            return {"RuleName": rule.rule_name}
        name = Fn.select(2, Fn.split("/", rule.rule_arn))  # arn:...:rule/<bus>/<rule>
        return {"EventBusName": self.bus.event_bus_name, "RuleName": name}


@jsii.implements(events.IRuleTarget)
class QueueTarget:
    """A queue that a rule sends to, tried for a day; then the event goes to the queue's dead letters.

    CDK's own target drops the condition `aws:SourceArn` from the policies of queues that a KMS key encrypts, unless a
    feature flag puts the account in its place. This target always names the rule.
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
