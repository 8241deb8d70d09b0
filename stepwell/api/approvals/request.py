"""The approval that a link refers to, and the state of the approval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stepwell.core.run.approvals import Link, Standing
from stepwell.core.run.run import RunStatus
from stepwell.core.times import time_text
from stepwell.reader import RunDetail


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """The approval that a link refers to. `output` is the decision, if there is one and it is stored."""

    link: Link
    detail: RunDetail
    standing: Standing
    output: dict[str, Any] | None

    @property
    def step_id(self) -> str:
        return self.detail.plan.steps[self.link.step].id

    @property
    def description(self) -> str:
        """A sentence on the state of an approval that is not open."""
        step = f"step {self.step_id} of run {self.detail.run.id}"
        if self.standing is Standing.DECIDED:
            return f"{step} was already decided: {self._decision}"
        if self.standing is Standing.EXPIRED:
            return f"{step} was not decided by {time_text(self.link.expires_at)}, so this link has expired"
        status = self.detail.run.status
        reason = "has continued" if status is RunStatus.RUNNING else f"has {status.name.lower()}"
        return f"{step} can no longer be decided: the run {reason.replace('has cancelled', 'was cancelled')}"

    @property
    def _decision(self) -> str:
        if self.output is None:
            return "the decision is no longer stored"
        by = f" by {self.output['by']}" if self.output["by"] else ""
        comment = f": {self.output['comment']}" if self.output["comment"] else ""
        return f"{self.output['decision']}{by} at {self.output['decided_at']}{comment}"
