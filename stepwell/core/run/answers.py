"""The expressions that the engine evaluates before a fact can be folded, and their answers."""

from __future__ import annotations

from dataclasses import field

from stepwell.core.cel.answer import Answer
from stepwell.core.plain_data import immutable
from stepwell.core.run.messages import Outcome


@immutable
class WaitKey:
    """The key under which a wait is stored, from the equalities in `match`; None if found by the event's name alone.
    `problem` is set if the run's side of `match` has no value, so that no event can satisfy the wait."""

    key: bytes | None
    problem: str | None = None


@immutable
class Moment:
    """The end of a delay (`wait.until`), in ms since the epoch, or the reason why there is none."""

    at: int = 0
    problem: str | None = None


@immutable
class Questions:
    """The expressions that the engine must evaluate before a fact can be folded. All are on edges of one `parent`."""

    parent: int = -1
    edges: tuple[int, ...] = ()  # edges whose `if` is evaluated now
    pauses: tuple[int, ...] = ()  # pauses whose wait key is needed now
    outcome: Outcome | None = None  # the outcome of the parent, if it ends with this fact
    moments: tuple[int, ...] = ()  # edges whose `wait.until` is evaluated now


@immutable
class Answers:
    edges: dict[int, Answer] = field(default_factory=dict)
    pauses: dict[int, WaitKey] = field(default_factory=dict)
    moments: dict[int, Moment] = field(default_factory=dict)


NO_QUESTIONS = Questions()
NO_ANSWERS = Answers()
