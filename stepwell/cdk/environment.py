"""A deployed environment, as a stack of your own sees it: where to send events, and who may.

One rule: only what the environment wrote into SSM is read; nothing of the environment is changed.
"""

from __future__ import annotations

from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_ssm as ssm
from constructs import Construct


def bus_parameter(env: str) -> str:
    """The SSM parameter with the ARN of an environment's bus: templates cannot look into the JSON of the other."""
    return f"/stepwell/{env}/bus"


def registrar_parameter(env: str) -> str:
    """The SSM parameter with the ARN of the Lambda that registers functions of stacks."""
    return f"/stepwell/{env}/registrar"


class Environment(Construct):
    """`Environment(self, "Stepwell", "prod").grant_send(function)`: it may then put events on `bus`."""

    def __init__(self, scope: Construct, id: str, env: str) -> None:
        super().__init__(scope, id)
        arn = ssm.StringParameter.value_for_string_parameter(self, bus_parameter(env))
        self.bus = events.EventBus.from_event_bus_arn(self, "Bus", arn)

    def grant_send(self, grantee: iam.IGrantable) -> iam.Grant:
        """Let something put events on the environment's bus: `detail-type` is the event's name, `detail` its data."""
        return self.bus.grant_put_events_to(grantee)

    def as_target(self) -> events.IRuleTarget:
        """For rules on another bus, such as the account's default one: what matches is sent to the environment."""
        return targets.EventBus(self.bus)
