"""A run as the engine works on it on AWS: its record, with what its item needs besides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field

from stepwell.aws.table.stored_attempts import StoredAttempt
from stepwell.core.plain_data import immutable
from stepwell.core.run.inputs import JoinedOutputs
from stepwell.core.run.run import Run, StepStatus
from stepwell.platform import Causes, RunRecord

AT_ONCE = 32  # attempts of a run that may run while each outcome is folded by itself


@dataclass(slots=True)
class StoredState:
    """What the item of a run holds besides its record; the store changes it as it writes. `revision` counts the item's
    writes; 0: not written yet."""

    position: int = 0
    revision: int = 0
    attempts: list[StoredAttempt] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)
    written_causes: Causes = field(default_factory=dict)
    watched: int | None = None
    wide_at: int = 0


@immutable
class Record(RunRecord):
    """A run as the engine works on it, with what its item needs besides."""

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
        """Whether so many attempts may end at once that their outcomes are written down before they are folded.
        Everybody who sees the same revision of the run says the same. People end theirs one by one."""
        if len(self.run.steps) <= AT_ONCE:
            return False
        running = sum(step.status is StepStatus.RUNNING for step in self.run.steps)
        return running - len(self.plan.approval_steps) > AT_ONCE

    @property
    def next_wide_at(self) -> int:
        """`wide_at` once the run is written as it is."""
        return self.stored.revision + 1 if self.is_wide else self.stored.wide_at

    def count_write(self) -> None:
        """The run is written as it is."""
        stored = self.stored
        stored.wide_at = self.next_wide_at
        stored.revision += 1
        stored.written_causes = self.causes


class Results(Mapping[int, bytes]):
    """Outputs or errors by step; those that are in other items are read, all at once, when one of them is needed.
    `elsewhere` is shared by all that came of the same item."""

    def __init__(self, known: dict[int, bytes], elsewhere: Elsewhere) -> None:
        self._known, self._elsewhere = known, elsewhere

    def __getitem__(self, step: int) -> bytes:
        if step in self._known:
            return self._known[step]
        return self._elsewhere.read()[step]

    def __contains__(self, step: object) -> bool:
        return step in self._known or step in self._elsewhere.steps

    def __or__(self, more: dict[int, bytes]) -> Results:
        return Results(self._known | more, self._elsewhere)

    def __iter__(self) -> Iterator[int]:
        return iter({**self._known, **dict.fromkeys(self._elsewhere.steps)})

    def __len__(self) -> int:
        return len(self._known.keys() | self._elsewhere.steps)


class Elsewhere:
    """Results that are not in the item of their run. `fetch` reads them."""

    def __init__(self, steps: Set[int], fetch: Callable[[], dict[int, bytes]]) -> None:
        self.steps, self._fetch = steps, fetch
        self._read: dict[int, bytes] | None = None

    def read(self) -> dict[int, bytes]:
        if self._read is None:
            self._read = self._fetch() if self.steps else {}
        return self._read
