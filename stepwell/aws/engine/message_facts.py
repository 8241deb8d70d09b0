"""What messages bring to the engine: a value that the handlers make of a message, and the consumer of a batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field

from stepwell.core.plain_data import immutable
from stepwell.platform import IncomingEvent, RunFact


@immutable
class MessageFacts:
    """`request_ids`: of the attempts whose outcomes are among the facts, by run, step and attempt; their logs are found
    by them."""

    arrivals: Sequence[IncomingEvent] = ()
    facts: Sequence[RunFact] = ()
    request_ids: Mapping[tuple[str, int, int], str] = field(default_factory=dict)


NOTHING = MessageFacts()


def together(parts: Iterable[MessageFacts]) -> MessageFacts:
    """What several messages bring, in their order."""
    arrivals: list[IncomingEvent] = []
    facts: list[RunFact] = []
    request_ids: dict[tuple[str, int, int], str] = {}
    for part in parts:
        arrivals += part.arrivals
        facts += part.facts
        request_ids |= part.request_ids
    return MessageFacts(arrivals, facts, request_ids)
