"""One call of the engine: the batch it works in, how much it may do at once, and what could not be done."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from stepwell.core.cel.expressions import EFFORT
from stepwell.platform import Batch, Cause, DamagedRun, Pace, RunFact, RunRecord

_LONG = 10_000_000  # ns of expressions, of what is done before others have their turn

log = logging.getLogger("stepwell.engine")


@dataclass(slots=True)
class Undone:
    """What could not be done: ids of the messages to redeliver, and facts, of those that no message brought, to hand in
    again."""

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
        """Others have had their turn."""
        self._tired_at = EFFORT.spent + self._long

    def is_tired(self) -> bool:
        """Whether the expressions of this piece have taken long enough."""
        return EFFORT.spent > self._tired_at

    def fail(self, causes: Iterable[Cause | None]) -> None:
        """Have these messages delivered again."""
        self.undone.causes.update(cause.id for cause in causes if cause is not None)

    def put_aside(self, facts: Iterable[RunFact]) -> None:
        """Have these facts handed in again, by their messages if they have some."""
        for fact in facts:
            if fact.cause is None:
                self.undone.facts.append(fact)
            else:
                self.undone.causes.add(fact.cause.id)

    def load(self, run_ids: Iterable[str], *, come_again: bool) -> tuple[dict[str, RunRecord], list[str]]:
        """Runs by id, and those that cannot be read, which hold up no other. `come_again`: whatever asks for them is
        delivered again. Otherwise only a damaged run is left out: any other error is the whole batch's, which is done
        again."""
        wanted = list(run_ids)
        tolerated: type[Exception] = Exception if come_again else DamagedRun
        try:
            return self.batch.load(wanted), []
        except tolerated:
            log.warning("of %s runs, some cannot be read", len(wanted))
        found: dict[str, RunRecord] = {}
        unreadable: list[str] = []
        for run_id in wanted:
            try:
                found |= self.batch.load([run_id])
            except tolerated:
                log.exception("run %s cannot be read", run_id)
                unreadable.append(run_id)
        return found, unreadable
