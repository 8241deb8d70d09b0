"""A deployed environment in a stack of somebody's own."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk.assertions import Match, Template

from stepwell.cdk.environment import Environment, bus_parameter
from tests.infra.conftest import Synth


def test_a_role_may_send_to_the_environment_s_bus_and_nowhere_else() -> None:
    stack = cdk.Stack()
    role = iam.Role(stack, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
    Environment(stack, "Stepwell", "prod").grant_send(role)
    template = Template.from_stack(stack)
    (parameter,) = template.find_parameters("*", {"Default": bus_parameter("prod")})
    statement = {"Action": "events:PutEvents", "Effect": "Allow", "Resource": {"Ref": parameter}}
    template.has_resource_properties(
        "AWS::IAM::Policy", {"PolicyDocument": {"Statement": [Match.object_like(statement)]}}
    )


def test_a_rule_can_hand_events_on_to_the_environment() -> None:
    stack = cdk.Stack()
    rule = events.Rule(stack, "Rule", event_pattern=events.EventPattern(source=["shop"]))
    rule.add_target(Environment(stack, "Stepwell", "prod").as_target())
    template = Template.from_stack(stack)
    (parameter,) = template.find_parameters("*", {"Default": bus_parameter("prod")})
    template.has_resource_properties("AWS::Events::Rule", {"Targets": [Match.object_like({"Arn": {"Ref": parameter}})]})


def test_the_environment_writes_the_parameter_that_is_read(synth: Synth) -> None:
    names = {its["Name"] for its in synth.resources("dev", "AWS::SSM::Parameter").values()}
    assert bus_parameter("dev") in names
