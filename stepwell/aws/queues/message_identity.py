"""The identity of a message: two messages with the same identity are the same cause.

A run stores the identity of the message that claimed an attempt. So the format must not change: a message that one
version of Stepwell did not finish may be delivered again to the next version.
"""

from __future__ import annotations

import re
from typing import Any

_RUN_ID = re.compile(r"[a-z2-7]{26}")
_EVENTBRIDGE = "0"  # `version` in an EventBridge envelope; the record of a Lambda destination has "1.0"


def ended_identity(run_id: str) -> str:
    """The identity of the cause that ends a run, and of the message that completes that work after a crash."""
    return f"ended/{run_id}"


def message_identity(body: Any, message_id: str) -> tuple[str, bool]:
    """The identity of a message with this parsed body, and whether it always counts as redelivered.

    EventBridge may deliver an event in two messages, so the identity of an event is the id of the envelope
    (https://docs.aws.amazon.com/eventbridge/latest/ref/overiew-event-structure.html). The message about the end of a
    run has the identity of the cause that ended it. The identity of any other message is the id from SQS.
    """
    if isinstance(body, dict):
        run_id, envelope_id = body.get("run"), body.get("id")
        if body.get("stepwell") == "ended" and isinstance(run_id, str) and _RUN_ID.fullmatch(run_id):
            return ended_identity(run_id), True
        if body.get("version") == _EVENTBRIDGE and isinstance(envelope_id, str) and envelope_id:
            return envelope_id, False
    return message_id, False
