"""An approval as the holder of a link sees it: what is asked, and how it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stepwell.core.run.approvals import Link, Standing
from stepwell.core.run.run import RunStatus
from stepwell.core.times import time_text
from stepwell.reader import RunDetail


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """An approval that a link leads to. `output`: what was decided, if that is known."""

    link: Link
    detail: RunDetail
    standing: Standing
    output: dict[str, Any] | None

    @property
    def step_id(self) -> str:
        return self.detail.plan.steps[self.link.step].id

    @property
    def in_words(self) -> str:
        """How it stands, if it is not open."""
        what = f"step {self.step_id} of run {self.detail.run.id}"
        if self.standing is Standing.DECIDED:
            return f"{what} was decided already: {self._decision}"
        if self.standing is Standing.EXPIRED:
            return f"{what} was not decided by {time_text(self.link.expires_at)}, so this link has expired"
        status = self.detail.run.status
        why = "has gone on" if status is RunStatus.RUNNING else f"has {status.name.lower()}"
        return f"{what} cannot be decided any more: the run {why.replace('has cancelled', 'was cancelled')}"

    @property
    def _decision(self) -> str:
        if self.output is None:
            return "what was decided is not kept"
        by = f" by {self.output['by']}" if self.output["by"] else ""
        comment = f": {self.output['comment']}" if self.output["comment"] else ""
        return f"{self.output['decision']}{by} at {self.output['decided_at']}{comment}"
