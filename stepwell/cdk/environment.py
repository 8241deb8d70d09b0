"""A deployed environment, for your own stacks: the bus to send events to, and the permission to do so.

The values come from the environment's parameters in SSM. The environment itself is not changed.
"""

from __future__ import annotations

from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_ssm as ssm
from constructs import Construct


def bus_parameter(env: str) -> str:
    """The name of the SSM parameter with the ARN of an environment's bus.

    Templates cannot read it from the JSON in the environment's other parameter.
    """
    return f"/stepwell/{env}/bus"


def registrar_parameter(env: str) -> str:
    """The name of the SSM parameter with the ARN of the Lambda that registers functions of stacks."""
    return f"/stepwell/{env}/registrar"


class Environment(Construct):
    """A deployed environment. `Environment(self, "Stepwell", "prod").grant_send(lambda_)` lets a Lambda send events."""

    def __init__(self, scope: Construct, id: str, env: str) -> None:
        super().__init__(scope, id)
        arn = ssm.StringParameter.value_for_string_parameter(self, bus_parameter(env))
        self.bus = events.EventBus.from_event_bus_arn(self, "Bus", arn)

    def grant_send(self, grantee: iam.IGrantable) -> iam.Grant:
        """Lets a principal put events on the bus. `detail-type` is the event's name, `detail` the event's data."""
        return self.bus.grant_put_events_to(grantee)

    def as_target(self) -> events.IRuleTarget:
        """A target for rules on another bus, such as the account's default bus. It sends matching events here."""
        return targets.EventBus(self.bus)
