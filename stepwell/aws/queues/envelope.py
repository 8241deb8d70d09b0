"""The values by which Stepwell marks EventBridge envelopes. The detail of such an envelope is a whole event."""

from __future__ import annotations

INGEST = "stepwell.api"  # source of events that ingest accepted
ORIGIN = "stepwell:origin:"  # prefix of the resource that stores an event's origin, if ingest created the event's id
REFUSED = "stepwell.refused"  # source of events that do not match their schema; functions may react to them
REFUSED_TYPE = "stepwell/event.refused"  # detail-type of refused events, so that rules for the event's name ignore them


def accepted_by_sqs(body: bytes) -> str:
    """The JSON with two characters escaped that SQS refuses. In JSON they can only be in strings."""
    return body.decode().replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")
