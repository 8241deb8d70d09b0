"""References to a deployed environment from other stacks."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk.assertions import Match, Template

from stepwell.aws.resources import Resources
from stepwell.cdk.deployed import step_parameter
from stepwell.cdk.environment import Environment, bus_parameter, registrar_parameter
from tests.infra.conftest import EVERYTHING, Synth


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


def test_a_rule_on_another_bus_can_send_to_the_environment() -> None:
    stack = cdk.Stack()
    rule = events.Rule(stack, "Rule", event_pattern=events.EventPattern(source=["shop"]))
    rule.add_target(Environment(stack, "Stepwell", "prod").as_target())
    template = Template.from_stack(stack)
    (parameter,) = template.find_parameters("*", {"Default": bus_parameter("prod")})
    template.has_resource_properties("AWS::Events::Rule", {"Targets": [Match.object_like({"Arn": {"Ref": parameter}})]})


def test_the_environment_writes_the_parameters_that_are_read(synth: Synth) -> None:
    written = {
        resource["Name"]: resource["Value"] for resource in synth.resources("dev", "AWS::SSM::Parameter").values()
    }
    (bus,) = synth.resources("dev", "AWS::Events::EventBus")
    assert written[bus_parameter("dev")] == {"Fn::GetAtt": [bus, "Arn"]}
    functions = synth.resources("dev", "AWS::Lambda::Function").items()
    (registrar,) = [name for name, item in functions if item["Handler"] == "lambdas.register.handler"]
    assert written[registrar_parameter("dev")] == {"Fn::GetAtt": [registrar, "Arn"]}


def test_the_environment_writes_what_steps_in_stacks_read(synth: Synth) -> None:
    kinds = {}
    for env in ("dev", "all"):
        parameters = synth.resources(env, "AWS::SSM::Parameter").values()
        kinds[env] = {
            parameter["Name"]: (parameter["Type"], parameter["Value"])
            for parameter in parameters
            if "/steps/" in parameter["Name"]
        }
    names = {
        "outcomes-queue", "layer-arm64", "layer-x86_64", "kms-key", "permissions-boundary", "tracing",
        "retention-days", "event-age-s",
    }  # fmt: skip
    assert kinds["dev"].keys() == {step_parameter("dev", name) for name in names}
    assert kinds["dev"][step_parameter("dev", "kms-key")] == ("String", "-")  # SSM accepts no empty value
    assert kinds["dev"][step_parameter("dev", "tracing")] == ("String", "false")
    assert kinds["all"].keys() == {step_parameter("all", name) for name in {*names, "subnets", "security-groups"}}
    assert kinds["all"][step_parameter("all", "subnets")] == ("StringList", "subnet-0123abcd,subnet-0123abce")
    assert kinds["all"][step_parameter("all", "permissions-boundary")][1] == EVERYTHING.permissions_boundary
    (queue,) = [name for name in synth.resources("dev", "AWS::SQS::Queue") if "OutcomesQueue" in name]
    assert kinds["dev"][step_parameter("dev", "outcomes-queue")][1] == {"Fn::GetAtt": [queue, "QueueName"]}


def test_the_registrar_s_timeout_exceeds_the_routers_cache_time(synth: Synth) -> None:
    (value,) = [
        resource
        for resource in synth.resources("dev", "AWS::Lambda::Function").values()
        if resource["Handler"] == "lambdas.register.handler"
    ]
    longest_cache_s = Resources.__dataclass_fields__["cache_s"].default
    assert value["Timeout"] > 2 * longest_cache_s
