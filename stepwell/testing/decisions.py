"""Decides approvals in tests, through the links that people get."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from stepwell.testing.platform import Json
from stepwell.testing.settling import Settling


class Decisions(Settling):
    """Implements `approve` and `decline` of `platform.Stepwell`."""

    @abstractmethod
    def peek(self, run_id: str) -> Json: ...

    @abstractmethod
    def api(self, method: str, path: str, body: Any = None) -> Any: ...

    def approve(self, run_id: str, step: str | None = None, comment: str | None = None, by: str | None = None) -> Json:
        return self._decide("approve_url", run_id, step, {"comment": comment, "by": by})

    def decline(self, run_id: str, step: str | None = None, comment: str | None = None, by: str | None = None) -> Json:
        return self._decide("decline_url", run_id, step, {"comment": comment, "by": by})

    def _decide(self, link: str, run_id: str, step: str | None, body: Json) -> Json:
        self.settle()
        steps = self.peek(run_id)["steps"]
        approvals = {step_id: item["approval"] for step_id, item in steps.items() if "approval" in item}
        if step is None and len(approvals) == 1:
            (step,) = approvals
        if step not in approvals:
            wanted = f"open approval {step}" if step else "single open approval; name the step"
            raise LookupError(f"run {run_id} has no {wanted}. Open approvals: {sorted(approvals)}")
        token = approvals[step][link].rpartition("/")[2]
        decision: Json = self.api("POST", f"/v1/approvals/{token}", body)
        self.settle()
        return decision
