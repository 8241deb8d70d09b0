"""Counts the starts of runs for `rate_limit`, with one read and one conditional write for each start.

Of two Lambdas that count for one key, one finds that the item has changed, and decides again. A chunk is written before
the main item that no longer contains its starts, and always with the same content, so a crash in between is harmless.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import NamedTuple

from stepwell.aws.clients import client
from stepwell.aws.table.items import delete_items, read_item, read_partition
from stepwell.aws.table.keys import (
    NEW,
    START_CHUNKS,
    UNCHANGED,
    Item,
    rate_limit_key,
    rate_limit_partition,
    start_chunk_key,
)
from stepwell.aws.table.start_log import (
    CHUNK,
    StartLog,
    StartOf,
    digest_of,
    erased,
    pack_log,
    pack_starts,
    starts_of_others,
    unpack_log,
    unpack_starts,
)
from stepwell.core.flow.windows import next_start
from stepwell.core.plan import RateLimit
from stepwell.platform import NotWritten

_DAY_S = 86_400
_TRIES = 20
_LONGEST_PAUSE_S = 0.05

_Place = tuple[str, bytes]  # function and key


class _Stored(NamedTuple):
    """The main item. `version` is 0 if there is none."""

    log: StartLog = StartLog()
    version: int = 0
    ttl: int = 0


class DynamoRateLimits:
    """Implements `start_checks.RateLimits`."""

    def __init__(self, table: str) -> None:
        self._table = table

    def claim(
        self, function_id: str, key: bytes, limit: RateLimit, run_id: str, now: int, *, again: bool
    ) -> int | None:
        place, run = (function_id, key), digest_of(run_id)
        with _writing():
            for stored in self._tries(place):
                log = stored.log
                if log.has(run):
                    if not again:
                        return None
                    log = log.without(run)  # it starts now; a start in a chunk would count twice
                if (number := log.chunk_needed(limit.limit)) is not None:
                    log = log.with_chunk(number, self._chunk(place, number))
                possible_at = next_start(log.earlier(limit.limit), limit.period_ms, now)
                if possible_at is not None:
                    return possible_at
                log = log.add(now, run)
                ttl = _ttl(log.newest[-1], limit.period_ms)
                if log.is_full:
                    log = self._shortened(place, log, now - limit.period_ms, ttl)
                if self._put(place, _Stored(log, stored.version, ttl)):
                    return None
        raise AssertionError("the loop only ends with an error")

    def release(self, function_id: str, key: bytes, run_id: str) -> None:
        place, run = (function_id, key), digest_of(run_id)
        with _writing():
            for stored in self._tries(place):
                if not stored.log.has(run) or self._put(place, stored._replace(log=stored.log.without(run))):
                    return

    def forget(self, function_id: str, key: bytes, run_id: str, since: int) -> None:
        """Forgets which run started, because its user was erased.

        The start itself counts until the period ends, if runs of others have the same key; otherwise nothing of the key
        stays. `since`: runs that started before this time are no longer stored. Raises NotWritten.
        """
        place, run = (function_id, key), digest_of(run_id)
        with _writing():
            for stored in self._tries(place):
                chunks = {number: erased(starts, run) for number, starts in self._chunks(place).items()}
                log = stored.log.erased(run)
                if any(starts_of_others([*chain(*chunks.values()), *log.newest], since)):
                    if self._put(place, stored._replace(log=log)):
                        for number, starts in chunks.items():
                            self._put_chunk(place, number, starts, stored.ttl)
                        return
                elif self._delete(place, stored.version):
                    delete_items(self._table, [start_chunk_key(*place, number) for number in chunks])
                    return

    # --- items -----------------------------------------------------------------------------------------------------

    def _tries(self, place: _Place) -> Iterator[_Stored]:
        """The main item; again, after a random delay, if another process has changed it. Raises NotWritten."""
        for _ in range(_TRIES):
            item = read_item(self._table, rate_limit_key(*place))
            if item is None:
                yield _Stored()
            else:
                yield _Stored(unpack_log(item["w"]["B"]), int(item["v"]["N"]), int(item["ttl"]["N"]))
            time.sleep(random.uniform(0, _LONGEST_PAUSE_S))
        raise NotWritten(f"the starts of function {place[0]} were changed by other processes {_TRIES} times in a row")

    def _put(self, place: _Place, changed: _Stored) -> bool:
        """Writes the main item. False if another process has changed it since it was read."""
        db = client("dynamodb")
        item: Item = {
            **rate_limit_key(*place),
            "w": {"B": pack_log(changed.log)},
            "v": {"N": str(changed.version + 1)},
            "ttl": {"N": str(changed.ttl)},
        }
        try:
            db.put_item(TableName=self._table, Item=item, **_condition(changed.version))
        except db.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def _delete(self, place: _Place, version: int) -> bool:
        db = client("dynamodb")
        try:
            db.delete_item(TableName=self._table, Key=rate_limit_key(*place), **_condition(version))
        except db.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def _shortened(self, place: _Place, log: StartLog, over: int, ttl: int) -> StartLog:
        """The log without its oldest starts. They become a chunk, unless the period of all of them is over."""
        oldest = log.newest[:CHUNK]
        if oldest[-1].at > over:
            self._put_chunk(place, log.first // CHUNK, oldest, ttl)
        return log.without_oldest()

    def _put_chunk(self, place: _Place, number: int, starts: Sequence[StartOf], ttl: int) -> None:
        item = {**start_chunk_key(*place, number), "w": {"B": pack_starts(starts)}, "ttl": {"N": str(ttl)}}
        client("dynamodb").put_item(TableName=self._table, Item=item)

    def _chunk(self, place: _Place, number: int) -> list[StartOf]:
        """The starts in a chunk; none if it was not stored, because their period was over."""
        item = read_item(self._table, start_chunk_key(*place, number))
        return [] if item is None else unpack_starts(item["w"]["B"])

    def _chunks(self, place: _Place) -> dict[int, list[StartOf]]:
        """All chunks by number."""
        items = read_partition(self._table, rate_limit_partition(*place), START_CHUNKS, ConsistentRead=True)
        return {int(item["sk"]["S"].removeprefix(START_CHUNKS)): unpack_starts(item["w"]["B"]) for item in items}


def _condition(version: int) -> Item:
    if version == 0:
        return {"ConditionExpression": NEW}
    return {"ConditionExpression": UNCHANGED, "ExpressionAttributeValues": {":before": {"N": str(version)}}}


def _ttl(newest: StartOf, period_ms: int) -> int:
    return (newest.at + period_ms) // 1000 + _DAY_S


@contextmanager
def _writing() -> Iterator[None]:
    """Raises NotWritten for errors of DynamoDB."""
    try:
        yield
    except client("dynamodb").exceptions.ClientError as error:
        raise NotWritten(str(error)) from error
