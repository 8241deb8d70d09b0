"""Sources for the HTTP API, whose endpoints run in threads."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from stepwell.api.v1.sources import NotPossible
from stepwell.api.views.sources import PartitionLag, QuarantinedRecord, SourceDetail
from stepwell.local.queries.queries import Queries
from stepwell.local.sources import store
from stepwell.local.sources.reader import CannotSeek
from stepwell.local.sources.store import Quarantined, StoredSource
from stepwell.local.sources.supervisor import LocalSources
from stepwell.project.extras import missing_for_source
from stepwell.reader import Page

Json = dict[str, Any]


class SourceControl:
    """Implements `api.v1.sources.Sources`. `call` runs a coroutine on the platform's event loop and waits."""

    def __init__(
        self, sources: LocalSources, queries: Queries, call: Callable[[Coroutine[Any, Any, Any]], Any]
    ) -> None:
        self._sources, self._queries, self._call = sources, queries, call

    def read_sources(self) -> list[SourceDetail]:
        return [self._detail(source) for source in store.read_sources(self._queries.connection)]

    def read_source(self, name: str) -> SourceDetail | None:
        source = store.read_source(self._queries.connection, name)
        return None if source is None else self._detail(source)

    def _detail(self, source: StoredSource) -> SourceDetail:
        status = self._sources.status(source.name)
        return SourceDetail(
            source.definition,
            source.changed_at,
            status.state,
            status.error,
            status.next_try_at,
            status.lag.records,
            status.lag.seconds,
            [PartitionLag(name, lag.records, lag.seconds) for name, lag in status.lag.partitions.items()],
            status.records,
            status.events,
            store.count_quarantined(self._queries.connection, source.name),
            status.last_record_at,
            status.last_read_at,
        )

    def put_source(self, definition: Json) -> None:
        if (missing := missing_for_source(definition["type"])) is not None:
            raise NotPossible(f"{missing}, where the server runs")
        self._call(self._sources.put(definition))

    def remove_source(self, name: str) -> None:
        self._call(self._sources.remove(name))

    def pause_source(self, name: str) -> None:
        self._call(self._sources.pause(name))

    def resume_source(self, name: str) -> None:
        self._call(self._sources.resume(name))

    def replay_source(self, name: str, place: str) -> None:
        try:
            self._call(self._sources.replay(name, place))
        except CannotSeek as reason:
            raise NotPossible(str(reason)) from None

    def read_quarantine(self, name: str, before: int | None, limit: int) -> Page[QuarantinedRecord]:
        rows = store.read_quarantine(self._queries.connection, name, before, limit + 1)
        items = [_view(row) for row in rows[:limit]]
        return Page(items, items[-1].number if len(rows) > limit else None)

    def read_quarantined(self, name: str, number: int) -> QuarantinedRecord | None:
        row = store.read_quarantined(self._queries.connection, name, number)
        return None if row is None else _view(row)

    def retry_quarantined(self, name: str, numbers: Sequence[int]) -> list[int]:
        done: list[int] = self._call(self._sources.retry(name, numbers))
        return done

    def discard_quarantined(self, name: str, numbers: Sequence[int]) -> None:
        self._call(self._sources.discard(name, numbers))


def _view(row: Quarantined) -> QuarantinedRecord:
    return QuarantinedRecord(row.number, row.at, row.kind, row.field, row.why, row.record)
