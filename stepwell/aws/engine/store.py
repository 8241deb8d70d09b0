"""The engine's store in DynamoDB: the objects that all batches share."""

from __future__ import annotations

from stepwell.aws.engine.batch import DynamoBatch
from stepwell.aws.engine.paused_events import PausedEvents
from stepwell.aws.engine.timers import Timers
from stepwell.aws.engine.wait_pages import WaitPages
from stepwell.aws.functions.registry import Registry
from stepwell.aws.resources import Resources
from stepwell.aws.table.lists import Lists
from stepwell.aws.table.start_checks import DynamoStartChecks
from stepwell.aws.table.table import Table
from stepwell.aws.table.users import UserIndex
from stepwell.core.routing.versions import State

_DAY_S = 86_400


class DynamoStore:
    """Implements `platform.Store`."""

    def __init__(
        self, resources: Resources, registry: Registry, timers: Timers, wait_pages: WaitPages, lists: Lists
    ) -> None:
        self.resources, self.retention_s = resources, resources.retention_days * _DAY_S
        self.registry, self.timers, self.wait_pages, self.lists = registry, timers, wait_pages, lists
        self.table = Table(resources.table)
        self.paused_events = PausedEvents(resources)
        self.checks = DynamoStartChecks(resources.table)
        self.users = UserIndex(resources.table)

    def batch(self, now: int) -> DynamoBatch:
        return DynamoBatch(self, now)

    def is_deleted(self, function_id: str) -> bool:
        routing = self.registry.routing(function_id)
        return routing is not None and routing.state is State.DELETED
