"""The KMS key that the setting `kms_key` names: what it encrypts, and what that asks of whoever uses what is encrypted.

One rule: services are let in by the key's own policy, which its owner writes (`key_policy`); roles get the rest here.
"""

from __future__ import annotations

from collections.abc import Iterable

from aws_cdk import Aws
from aws_cdk import aws_kms as kms
from constructs import Construct

from infra.settings import Settings

_NEEDS = {
    "dynamodb": ("Decrypt",),  # of the table's own key, whatever is done
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
    """What one may have to do with the key, by the service through which, who may do these actions."""
    found: dict[str, set[str]] = {}
    for action in actions:
        service = action.partition(":")[0]
        found.setdefault(service, set()).update(_NEEDS.get(action) or _NEEDS.get(service, ()))
    return {service: sorted(items) for service, items in found.items() if items}


def via(service: str) -> dict[str, dict[str, str]]:
    """The condition that the key is used through this service."""
    return {"StringEquals": {"kms:ViaService": f"{service}.{Aws.REGION}.amazonaws.com"}}
