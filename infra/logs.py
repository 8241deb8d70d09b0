"""Log groups: all are made here, so that none is kept for ever, as those that AWS makes by itself are."""

from __future__ import annotations

from typing import cast

from aws_cdk import RemovalPolicy
from aws_cdk import aws_logs as logs
from constructs import Construct


def log_group(scope: Construct, id: str, days: int, name: str | None = None) -> logs.LogGroup:
    """A log group that keeps its entries for some days, and goes with the stack."""
    group = logs.LogGroup(scope, id, log_group_name=name, removal_policy=RemovalPolicy.DESTROY)
    cast(logs.CfnLogGroup, group.node.default_child).retention_in_days = days
    return group
