"""The KMS key of the setting `kms_key`, and the permissions on it that roles need.

AWS services get permissions from the key's policy, which the key's owner writes (`key_policy`). Roles get them here.
"""

from __future__ import annotations

from collections.abc import Iterable

from aws_cdk import Aws
from aws_cdk import aws_kms as kms
from constructs import Construct

from infra.settings import Settings

_NEEDS = {
    "dynamodb": ("Decrypt",),  # for all actions: it decrypts the table's data key
    "sqs:SendMessage": ("Decrypt", "GenerateDataKey"),
    "sqs:ReceiveMessage": ("Decrypt",),
    "s3:PutObject": ("GenerateDataKey",),
    "s3:GetObject": ("Decrypt",),
    "ssm:GetParameter": ("Decrypt",),
    "ssm:GetParameters": ("Decrypt",),
    "ssm:PutParameter": ("Encrypt",),
}


def key_of(scope: Construct, settings: Settings) -> kms.IKey | None:
    return kms.Key.from_key_arn(scope, "Key", settings.kms_key) if settings.kms_key else None


def key_actions(actions: Iterable[str]) -> dict[str, list[str]]:
    """The KMS actions that a role with these actions needs, by the service that calls KMS."""
    found: dict[str, set[str]] = {}
    for action in actions:
        service = action.partition(":")[0]
        found.setdefault(service, set()).update(_NEEDS.get(action) or _NEEDS.get(service, ()))
    return {service: sorted(items) for service, items in found.items() if items}


def via(service: str) -> dict[str, dict[str, str]]:
    """A condition that limits the use of the key to calls by this service."""
    return {"StringEquals": {"kms:ViaService": f"{service}.{Aws.REGION}.amazonaws.com"}}
