"""Events: the environment's own bus feeds `events`, and ECS' news on the account's default bus feed `outcomes`.

One rule: a bus hands over to queues, never to Lambdas, and what it cannot hand over goes to the queue's dead letters,
from where a redrive brings it to the queue.
"""

from __future__ import annotations

from aws_cdk import Aws, Duration
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from constructs import Construct

from infra.queues import Queues
from infra.settings import Settings
from stepwell.aws.dispatch import SOURCE
from stepwell.cdk.queue import DurableQueue

TRIED_FOR = Duration.hours(24)


class Bus(Construct):
    def __init__(self, scope: Construct, settings: Settings, queues: Queues) -> None:
        super().__init__(scope, "Bus")
        self._queues = queues
        self.bus = events.EventBus(self, "Bus", description=f"Events of Stepwell {settings.env}")
        everything = events.EventPattern(source=events.Match.prefix(""))
        # The engine's own events are for others: what starts or wakes a function here, the engine takes by itself.
        others = events.EventPattern(source=events.Match.anything_but(SOURCE))
        self.rule = events.Rule(
            self, "ToEvents", event_bus=self.bus, event_pattern=others, targets=[_to(queues.events)]
        )
        if settings.archive_days:
            self.bus.archive("Archive", event_pattern=everything, retention=Duration.days(settings.archive_days))

    def watch_containers(self, cluster_arn: str) -> events.Rule:
        """Tell `outcomes` when a task of the cluster has stopped: ECS says so on the default bus alone."""
        return events.Rule(
            self,
            "ContainersStopped",
            event_pattern=events.EventPattern(
                source=["aws.ecs"],
                detail_type=["ECS Task State Change"],
                account=[Aws.ACCOUNT_ID],
                detail={"clusterArn": [cluster_arn], "lastStatus": ["STOPPED"]},
            ),
            targets=[_to(self._queues.outcomes)],
        )


def _to(queue: DurableQueue) -> targets.SqsQueue:
    return targets.SqsQueue(
        queue.queue, dead_letter_queue=queue.dead_letters, max_event_age=TRIED_FOR, retry_attempts=185
    )
