"""Sends messages and events in batches.

If a request fails in part, only the failed entries are sent again. If entries still fail, `NotSent` is raised, so that
the message or request that caused them is handled again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from stepwell.aws.clients import client

MAX_BATCH = 10  # entries in one SendMessageBatch or PutEvents
_MAX_BYTES = 1_000_000  # both allow 1 MiB
_TRIES = 4

Entry = dict[str, Any]


class NotSent(Exception):
    """AWS refused some entries in every attempt."""


def send_messages(queue: str, entries: Sequence[Entry]) -> None:
    """Sends messages, each `{"MessageBody", "DelaySeconds"?}`, to the queue with this URL. Raises NotSent."""

    def send(batch: Sequence[Entry]) -> list[tuple[Entry, str]]:
        numbered = [{"Id": str(i), **entry} for i, entry in enumerate(batch)]
        answer = client("sqs").send_message_batch(QueueUrl=queue, Entries=numbered)
        return [(batch[int(failed["Id"])], failed["Code"]) for failed in answer.get("Failed", [])]

    _send_all(entries, lambda entry: len(entry["MessageBody"].encode()), send)


def put_events(entries: Sequence[Entry]) -> None:
    """Sends entries in the format of PutEvents to their buses. Raises NotSent."""

    def put(batch: Sequence[Entry]) -> list[tuple[Entry, str]]:
        answer = client("events").put_events(Entries=list(batch))
        results = zip(batch, answer["Entries"], strict=True)
        return [(entry, result["ErrorCode"]) for entry, result in results if "ErrorCode" in result]

    _send_all(entries, lambda entry: len(entry["Detail"].encode()) + len(entry["DetailType"]) + 100, put)


def _send_all(
    entries: Sequence[Entry],
    size: Callable[[Entry], int],
    send: Callable[[Sequence[Entry]], list[tuple[Entry, str]]],
) -> None:
    for batch in _batches(entries, size):
        left = batch
        for tries in range(1, _TRIES + 1):
            failed = send(left)
            if not failed:
                break
            if tries == _TRIES:
                raise NotSent(f"{len(failed)} of {len(batch)} entries were refused: {failed[0][1]}")
            time.sleep(random.uniform(0, 0.05 * 2**tries))
            left = [entry for entry, _ in failed]


def _batches(entries: Sequence[Entry], size: Callable[[Entry], int]) -> list[list[Entry]]:
    batches: list[list[Entry]] = []
    room = 0
    for entry in entries:
        number = size(entry)
        if not batches or number > room or len(batches[-1]) == MAX_BATCH:
            batches.append([])
            room = _MAX_BYTES
        batches[-1].append(entry)
        room -= number
    return batches
