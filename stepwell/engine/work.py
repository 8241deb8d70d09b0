"""The state of one call of the engine: the batch, the limit of work at once, and what could not be done."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from stepwell.core.cel.expressions import EFFORT
from stepwell.platform import Batch, Cause, DamagedRun, Pace, RunFact, RunRecord

_LONG = 10_000_000  # ns of evaluating expressions in one piece of work

log = logging.getLogger("stepwell.engine")


@dataclass(slots=True)
class Undone:
    """What could not be done: ids of the messages to redeliver, and facts without a message, to pass in again."""

    causes: set[str] = field(default_factory=set)
    facts: list[RunFact] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.causes or self.facts)


class Work:
    def __init__(self, batch: Batch, undone: Undone, pace: Pace | None = None) -> None:
        self.batch, self.undone, self.pace = batch, undone, pace
        self._long = math.inf if pace is None else _LONG
        self.begin_piece()

    def begin_piece(self) -> None:
        """Starts a new piece of work, with a new limit."""
        self._tired_at = EFFORT.spent + self._long

    def is_tired(self) -> bool:
        """Whether the expressions of this piece of work have used up the time limit."""
        return EFFORT.spent > self._tired_at

    def fail(self, causes: Iterable[Cause | None]) -> None:
        """Marks messages to be redelivered."""
        self.undone.causes.update(cause.id for cause in causes if cause is not None)

    def put_aside(self, facts: Iterable[RunFact]) -> None:
        """Marks facts to be passed in again, or the messages that brought them to be redelivered."""
        for fact in facts:
            if fact.cause is None:
                self.undone.facts.append(fact)
            else:
                self.undone.causes.add(fact.cause.id)

    def load(self, run_ids: Iterable[str], *, come_again: bool) -> tuple[dict[str, RunRecord], list[str]]:
        """Loads runs. Returns the runs by id, and the ids of those that cannot be read.

        With `come_again`, the messages of unreadable runs are redelivered, so any error is tolerated. Otherwise only
        damaged runs are tolerated; any other error fails the whole batch, which is repeated.
        """
        wanted = list(run_ids)
        tolerated: type[Exception] = Exception if come_again else DamagedRun
        try:
            return self.batch.load(wanted), []
        except tolerated:
            log.warning("some of %s runs cannot be read", len(wanted))
        found: dict[str, RunRecord] = {}
        unreadable: list[str] = []
        for run_id in wanted:
            try:
                found |= self.batch.load([run_id])
            except tolerated:
                log.exception("run %s cannot be read", run_id)
                unreadable.append(run_id)
        return found, unreadable
