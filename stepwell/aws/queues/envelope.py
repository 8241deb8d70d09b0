"""The sources that our own ingest puts on envelopes of EventBridge: the detail of each is a whole event."""

from __future__ import annotations

INGEST = "stepwell.api"  # it was accepted
ORIGIN = "stepwell:origin:"  # the resource of an event whose id was made by ingest begins so; then comes its origin
REFUSED = "stepwell.refused"  # it was not, since it is not as its type says: functions may want to know
REFUSED_TYPE = "stepwell/event.refused"  # the detail-type of those, which no other rule of the bus should take for them
