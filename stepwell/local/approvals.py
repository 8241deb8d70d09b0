"""Approvals on the local server: reads open ones, and takes decisions."""

from __future__ import annotations

from collections.abc import Callable

from stepwell.core.run.approvals import Link, Links
from stepwell.core.run.messages import Outcome
from stepwell.local.engine.platform import LocalPlatform
from stepwell.local.queries.queries import Queries
from stepwell.reader import Page, RunDetail


class LocalApprovals:
    """Implements `api.approvals.approvals.Approvals`. `decide` runs on the event loop."""

    def __init__(self, platform: LocalPlatform, queries: Queries, decide: Callable[[Link, Outcome], bool]) -> None:
        self._platform, self._queries, self.decide = platform, queries, decide

    def now(self) -> int:
        return self._platform.clock.now()

    def links(self) -> Links:
        return self._platform.links

    def read_asking(self, *, before: int | None, limit: int) -> Page[RunDetail]:
        return self._queries.read_asking(before, limit)

    def read_asked(self, run_id: str) -> RunDetail | None:
        return self._queries.read_asked(run_id)
