"""What makes two messages the same cause.

A run stores the identity of the message that claimed an attempt, so these identities must stay what they are: a message
that one version of Stepwell has left half done is delivered again to the next version.
"""

from __future__ import annotations

import re
from typing import Any

_RUN_ID = re.compile(r"[a-z2-7]{26}")
_EVENTBRIDGE = "0"  # `version` of EventBridge's envelopes; the records of Lambda's destinations have "1.0"


def ended_identity(run_id: str) -> str:
    """The identity of whoever ends a run, and of the message that tells of it after a crash."""
    return f"ended/{run_id}"


def message_identity(body: Any, message_id: str) -> tuple[str, bool]:
    """The identity of a message with this parsed body, and whether it always counts as redelivered.

    EventBridge may deliver an event in two messages, so an event's identity is the id of its envelope
    (https://docs.aws.amazon.com/eventbridge/latest/ref/overiew-event-structure.html). What tells of a run's end has the
    identity of whoever ended it. Every other message is known by the id that SQS gave it.
    """
    if isinstance(body, dict):
        run_id, envelope_id = body.get("run"), body.get("id")
        if body.get("stepwell") == "ended" and isinstance(run_id, str) and _RUN_ID.fullmatch(run_id):
            return ended_identity(run_id), True
        if body.get("version") == _EVENTBRIDGE and isinstance(envelope_id, str) and envelope_id:
            return envelope_id, False
    return message_id, False
