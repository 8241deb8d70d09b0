"""A run in memory on AWS: the engine's record, and the state that only the run's item in the table needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field

from stepwell.aws.table.stored_attempts import StoredAttempt
from stepwell.core.plain_data import immutable
from stepwell.core.run.inputs import JoinedOutputs
from stepwell.core.run.run import Run, StepStatus
from stepwell.platform import Causes, RunRecord

AT_ONCE = 32  # a run with more running attempts is wide: outcomes are stored before they are folded


@dataclass(slots=True)
class StoredState:
    """The part of a run's item that the engine's record does not contain. The store updates it with each write.

    `revision` counts the writes of the item; 0: not written yet.
    """

    position: int = 0
    revision: int = 0
    attempts: list[StoredAttempt] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)
    written_causes: Causes = field(default_factory=dict)
    watched: int | None = None
    wide_at: int = 0


@immutable
class Record(RunRecord):
    """The engine's record of a run, with the state of the run's item."""

    stored: StoredState = field(default_factory=StoredState)

    def changed(
        self,
        run: Run,
        outputs: Mapping[int, bytes],
        errors: Mapping[int, bytes],
        causes: Causes,
        joined: JoinedOutputs | None,
    ) -> Record:
        same = self.plan, self.event, self.after, self.rerun_of, self.replay, self.order
        return Record(run, *same, outputs, errors, causes, joined, self.stored)

    @property
    def is_wide(self) -> bool:
        """Whether outcomes of the run are stored before they are folded, because many attempts may end at once.

        It depends only on the revision of the run, so all processes decide alike. Open approvals do not count: they
        end one by one.
        """
        if len(self.run.steps) <= AT_ONCE:
            return False
        running = sum(step.status is StepStatus.RUNNING for step in self.run.steps)
        return running - len(self.plan.approval_steps) > AT_ONCE

    @property
    def next_wide_at(self) -> int:
        """The value of `wide_at` after the next write of the run."""
        return self.stored.revision + 1 if self.is_wide else self.stored.wide_at

    def count_write(self) -> None:
        """Updates the stored state after the run was written."""
        stored = self.stored
        stored.wide_at = self.next_wide_at
        stored.revision += 1
        stored.written_causes = self.causes


class Results(Mapping[int, bytes]):
    """Outputs or errors by step. Results in other items are all read when the first of them is needed.

    `overflow` is shared by all `Results` that are derived from the same item.
    """

    def __init__(self, known: dict[int, bytes], overflow: OverflowResults) -> None:
        self._known, self._overflow = known, overflow

    def __getitem__(self, step: int) -> bytes:
        if step in self._known:
            return self._known[step]
        return self._overflow.read()[step]

    def __contains__(self, step: object) -> bool:
        return step in self._known or step in self._overflow.steps

    def __or__(self, more: dict[int, bytes]) -> Results:
        return Results(self._known | more, self._overflow)

    def __iter__(self) -> Iterator[int]:
        return iter({**self._known, **dict.fromkeys(self._overflow.steps)})

    def __len__(self) -> int:
        return len(self._known.keys() | self._overflow.steps)


class OverflowResults:
    """Results that are stored outside the run's item. `fetch` reads them from the table."""

    def __init__(self, steps: Set[int], fetch: Callable[[], dict[int, bytes]]) -> None:
        self.steps, self._fetch = steps, fetch
        self._read: dict[int, bytes] | None = None

    def read(self) -> dict[int, bytes]:
        if self._read is None:
            self._read = self._fetch() if self.steps else {}
        return self._read
