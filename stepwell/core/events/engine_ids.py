"""The prefixes of the event ids that the engine generates.

Senders must not use them: such an event would make a cron tick, a run's end, a webhook delivery, a record of a source,
a step's event or a pushed job a duplicate. Ids are compared exactly, so `Cron:x` and ` cron:x` are ordinary ids.
"""

from __future__ import annotations

from enum import StrEnum


class EngineId(StrEnum):
    APPROVAL = "approval:"  # an approval is requested
    CRON = "cron:"  # a tick of a cron trigger
    EMIT = "emit:"  # an event that a step sent, followed by the ids of its run and of the step
    FAKTORY = "faktory:"  # a job that a Faktory client pushed, followed by its `jid`
    INVALID = "invalid:"  # an event does not match the schema of its type
    ROLLBACK = "rollback:"  # a guard rolled a canary back
    RUN = "run:"  # a run has ended
    SOURCE = "source:"  # a record of a source, followed by the record's id
    WEBHOOK = "webhook:"  # a delivery of a webhook, followed by the sender's id for it


def engine_prefix(event_id: str) -> EngineId | None:
    """The engine's prefix with which an id begins; None if there is none."""
    kind, colon, _ = event_id.partition(":")
    return _BY_KIND.get(kind) if colon else None


_BY_KIND = {prefix.value[:-1]: prefix for prefix in EngineId}


def engine_id_message(prefix: EngineId) -> str:
    return f"ids that begin with '{prefix}' are reserved for the engine; choose another id"
