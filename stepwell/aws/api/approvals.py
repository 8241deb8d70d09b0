"""Approvals on AWS: lists open approvals, and records decisions."""

from __future__ import annotations

from collections.abc import Callable

from stepwell.aws.api.queries import Queries
from stepwell.aws.engine.session import now_ms
from stepwell.aws.resources import Resources
from stepwell.aws.signing.tokens import Tokens
from stepwell.core.run.approvals import Link, Links
from stepwell.core.run.messages import Outcome
from stepwell.reader import Page, RunDetail


class AwsApprovals:
    """Implements `api.approvals.approvals.Approvals`. `decide`: ends an approval through the engine."""

    def __init__(self, resources: Resources, queries: Queries, decide: Callable[[Link, Outcome], bool]) -> None:
        self._url, self._tokens, self._queries, self.decide = resources.api_url, Tokens(resources), queries, decide

    def now(self) -> int:
        return now_ms()

    def links(self) -> Links:
        return Links(self._url, self._tokens)

    def read_asking(self, *, before: int | None, limit: int) -> Page[RunDetail]:
        return self._queries.read_asking(before, limit)

    def read_asked(self, run_id: str) -> RunDetail | None:
        return self._queries.read_asked(run_id)
