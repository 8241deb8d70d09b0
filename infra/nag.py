"""What cdk-nag's rules (AwsSolutions) ask for and we do otherwise, each with its reason.

One rule: a reason says what stands in for what the rule wants.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aws_cdk import Acknowledgment, Stack, Validations
from constructs import Construct

REASONS = {
    "AwsSolutions-APIG4": "The ingest and api Lambdas check API keys; an authorizer would be one Lambda more.",
    "AwsSolutions-S1": "Only the engine and `stepwell push` use the bucket; CloudTrail can show who else did.",
    "AwsSolutions-L1": "The setting `python` says which; the lock files of layers/engine are made for its default.",
    "AwsSolutions-DDB3": "It is on, unless the setting `point_in_time_recovery` turns it off.",
    "AwsSolutions-ECS4": "Container Insights cost more than the engine does; a step's duration and log are its run's.",
    "AwsSolutions-IAM5[Resource::*]": (
        "ecs:ListTasks, xray:Put... and ecr:GetAuthorizationToken cannot name a resource; the first names the cluster."
    ),
}
WILDCARDS = {
    "step lambdas": "`stepwell push` makes the Lambdas of steps; their names begin with the environment's.",
    "step roles": "`stepwell push` makes a role for each function; their names begin with the environment's.",
    "step logs": "Every Lambda of a step has a log group of its own; their names begin with the environment's.",
    "container logs": "Every function with container steps has a log group; they are below the environment's.",
    "task definitions": "`stepwell push` registers the definitions; their names begin with the environment's.",
    "tasks": "Tasks have generated ids; only those of this environment's cluster are meant.",
    "inputs": "Every attempt has an object of its own; only those below inputs/ are meant.",
    "parameters": "Steps name the parameters that they read; only those of this environment are meant.",
}


def acknowledge(scope: Construct, places: Mapping[str, list[str]]) -> None:
    for rule, reason in REASONS.items():
        Validations.of(scope).acknowledge(Acknowledgment(id=rule, reason=reason))
    for place, reason in WILDCARDS.items():
        for arn in places.get(place, ()):
            finding = f"AwsSolutions-IAM5[Resource::{_as_written(Stack.of(scope).resolve(arn))}]"
            Validations.of(scope).acknowledge(Acknowledgment(id=finding, reason=reason))


def acknowledge_wildcards(scope: Construct, document: Mapping[str, Any]) -> None:
    """For a permissions boundary, which allows nothing by itself."""
    reason = "A boundary grants nothing: it says what roles of steps, whose names it cannot know, may allow at most."
    for statement in document["Statement"]:
        for kind in ("Resource", "Action"):
            values = statement[kind] if isinstance(statement[kind], list) else [statement[kind]]
            for value in values:
                finding = f"AwsSolutions-IAM5[{kind}::{_as_written(Stack.of(scope).resolve(value))}]"
                Validations.of(scope).acknowledge(Acknowledgment(id=finding, reason=reason))


def _as_written(value: Any) -> str:
    """A resolved value as cdk-nag writes it: references in angle brackets."""
    if isinstance(value, str):
        return value
    ((function, of),) = value.items()
    if function == "Fn::Join":
        separator, parts = of
        return str(separator).join(_as_written(part) for part in parts)
    return f"<{of if function == 'Ref' else '.'.join(of)}>"
