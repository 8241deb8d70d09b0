"""Exceptions from cdk-nag's rules (AwsSolutions), each with the reason, or with what is done instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aws_cdk import Acknowledgment, Stack, Validations
from constructs import Construct

REASONS = {
    "AwsSolutions-APIG4": "The ingest and api Lambdas check API keys; an authorizer would be one more Lambda.",
    "AwsSolutions-S1": "Only the engine and `stepwell push` use the bucket; CloudTrail can log other accesses.",
    "AwsSolutions-L1": "The setting `python` selects the runtime; the lock files of layers/engine match the default.",
    "AwsSolutions-DDB3": "It is on, unless the setting `point_in_time_recovery` turns it off.",
    "AwsSolutions-ECS4": "Container Insights cost more than the engine; runs have each step's duration and log.",
    "AwsSolutions-IAM5[Resource::*]": (
        "ecs:ListTasks, xray:Put... and ecr:GetAuthorizationToken cannot name a resource; the first names the cluster."
    ),
}
WILDCARDS = {
    "step lambdas": "`stepwell push` creates the Lambdas of steps; their names begin with the environment's name.",
    "step roles": "`stepwell push` creates a role per function; their names begin with the environment's name.",
    "step logs": "Every step Lambda has a log group; their names begin with the environment's name.",
    "container logs": "Every function with container steps has a log group below the environment's prefix.",
    "task definitions": "`stepwell push` registers them; their names begin with the environment's name.",
    "tasks": "Tasks have generated ids; the ARN is limited to this environment's cluster.",
    "inputs": "Every attempt has an object; the ARN is limited to the prefix inputs/.",
    "parameters": "Steps name the parameters that they read; the ARN is limited to this environment.",
}


def acknowledge(scope: Construct, places: Mapping[str, list[str]]) -> None:
    """Acknowledges the exceptions for an environment. `places`: ARNs by the names that `roles` uses."""
    for rule, reason in REASONS.items():
        Validations.of(scope).acknowledge(Acknowledgment(id=rule, reason=reason))
    for place, reason in WILDCARDS.items():
        for arn in places.get(place, ()):
            finding = f"AwsSolutions-IAM5[Resource::{_as_written(Stack.of(scope).resolve(arn))}]"
            Validations.of(scope).acknowledge(Acknowledgment(id=finding, reason=reason))


def acknowledge_wildcards(scope: Construct, document: Mapping[str, Any]) -> None:
    """Acknowledges the wildcards of a permissions boundary, which grants nothing."""
    reason = "A boundary grants nothing: it limits the roles of steps, whose names are not known here."
    for statement in document["Statement"]:
        for kind in ("Resource", "Action"):
            values = statement[kind] if isinstance(statement[kind], list) else [statement[kind]]
            for value in values:
                finding = f"AwsSolutions-IAM5[{kind}::{_as_written(Stack.of(scope).resolve(value))}]"
                Validations.of(scope).acknowledge(Acknowledgment(id=finding, reason=reason))


def _as_written(value: Any) -> str:
    """A resolved value in cdk-nag's notation: references in angle brackets."""
    if isinstance(value, str):
        return value
    ((function, of),) = value.items()
    if function == "Fn::Join":
        separator, parts = of
        return str(separator).join(_as_written(part) for part in parts)
    return f"<{of if function == 'Ref' else '.'.join(of)}>"
