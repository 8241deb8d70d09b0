"""How the ids of events begin that the engine itself makes, all of them.

A sender may not use such an id: it could make a tick of a cron trigger, the end of a run or a delivery of a webhook a
duplicate. Ids are compared as they are written, so `Cron:x` and ` cron:x` are ids like any other.
"""

from __future__ import annotations

from enum import StrEnum


class EngineId(StrEnum):
    APPROVAL = "approval:"  # somebody is asked to decide
    CRON = "cron:"  # a tick of a cron trigger
    INVALID = "invalid:"  # an event does not match its type
    ROLLBACK = "rollback:"  # a guard took a canary back
    RUN = "run:"  # a run has ended
    WEBHOOK = "webhook:"  # a delivery of a webhook, by what its sender calls it


def engine_prefix(event_id: str) -> EngineId | None:
    """With which of them an id begins."""
    kind, colon, _ = event_id.partition(":")
    return _BY_KIND.get(kind) if colon else None


_BY_KIND = {prefix.value[:-1]: prefix for prefix in EngineId}


def engine_id_message(prefix: EngineId) -> str:
    return f"ids that begin with '{prefix}' are the engine's own; choose another"
