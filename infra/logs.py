"""Log groups. Stepwell creates them itself: log groups that AWS creates keep their logs for ever."""

from __future__ import annotations

from typing import cast

from aws_cdk import RemovalPolicy
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.settings import Settings


def log_group(scope: Construct, id: str, settings: Settings, name: str | None = None) -> logs.LogGroup:
    """A log group with the environment's retention. It is deleted with the stack."""
    group = logs.LogGroup(scope, id, log_group_name=name, removal_policy=RemovalPolicy.DESTROY)
    raw = cast(logs.CfnLogGroup, group.node.default_child)
    raw.retention_in_days, raw.kms_key_id = settings.log_days, settings.kms_key or None
    return group
