"""The events and facts in messages: the input of the engine on AWS."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field

from stepwell.core.plain_data import immutable
from stepwell.platform import IncomingEvent, RunFact


@immutable
class MessageFacts:
    """The events and facts of one message or of a batch.

    `request_ids`: by run, step and attempt, the request ids of the attempts whose outcomes are among the facts. Logs
    are found by them.
    """

    events: Sequence[IncomingEvent] = ()
    facts: Sequence[RunFact] = ()
    request_ids: Mapping[tuple[str, int, int], str] = field(default_factory=dict)


NOTHING = MessageFacts()


def combined(parts: Iterable[MessageFacts]) -> MessageFacts:
    """The events and facts of several messages, in order."""
    events: list[IncomingEvent] = []
    facts: list[RunFact] = []
    request_ids: dict[tuple[str, int, int], str] = {}
    for part in parts:
        events += part.events
        facts += part.facts
        request_ids |= part.request_ids
    return MessageFacts(events, facts, request_ids)
