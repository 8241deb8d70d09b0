"""Decides on approvals while `stepwell run` runs a function: by options, else by asking at the terminal."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stepwell.cli.commands.approvals import user_name
from stepwell.cli.ui.output import ask, confirm, console, fail, stderr, warn
from stepwell.terminal import shown

if TYPE_CHECKING:
    from stepwell.api.views.models import ApprovalView, RunView
    from stepwell.local.server import LocalServer


class ApprovalPrompt:
    """Decides on the open approvals of a run.

    `approve` and `decline` are the steps that options have decided. `may_ask`: ask at the terminal for the others.
    """

    def __init__(
        self, definition: Mapping[str, Any], approve: Sequence[str], decline: Sequence[str], *, may_ask: bool
    ) -> None:
        steps = definition["steps"]
        approval_steps = [step for step in steps if steps[step]["runtime"]["type"] == "approval"]
        for option, given in (("--approve", approve), ("--decline", decline)):
            for step in given:
                if step not in approval_steps:
                    known = f"it has {', '.join(approval_steps)}" if approval_steps else "it has none"
                    fail(f"{option} {step}: {definition['id']} has no approval step of this name; {known}", 2)
        if both := set(approve) & set(decline):
            fail(f"pass --approve or --decline for {min(both)}, not both", 2)
        self._decided = {**dict.fromkeys(approve, "approve"), **dict.fromkeys(decline, "decline")}
        self._may_ask = may_ask and sys.stdin.isatty() and sys.stdout.isatty()
        self._warned: set[str] = set()

    async def decide(self, server: LocalServer, view: RunView) -> bool:
        """Decides on an open approval of the run. Returns False if there is none that can be decided."""
        for step, step_view in view["steps"].items():
            if "approval" not in step_view:
                continue
            if step in self._decided:
                await self._send(server, step_view["approval"], self._decided[step], None)
                return True
            if self._may_ask:
                await self._send(
                    server, step_view["approval"], *await asyncio.to_thread(_ask, step, step_view["approval"])
                )
                return True
            if step not in self._warned:
                self._warned.add(step)
                warn(f"no decision on {step}, so the approval times out; pass --approve {step} or --decline {step}")
        return False

    async def _send(self, server: LocalServer, approval: ApprovalView, decision: str, comment: str | None) -> None:
        from stepwell.core.run.approvals import decided

        platform = server.platform
        url = approval["approve_url"] if decision == "approve" else approval["decline_url"]
        link = platform.links.read(url.rpartition("/")[2])
        assert link is not None
        await platform.runs.decide(link, decided(link.decision, comment, user_name(), platform.clock.now()))


def _ask(step: str, approval: ApprovalView) -> tuple[str, str | None]:
    """Asks at the terminal. Returns the decision and the comment."""
    console.print(f"[bold blue]asks[/]  [bold]{shown(step)}[/]  ", end="")
    console.print(approval["message"], markup=False, soft_wrap=True)
    if approval["approvers"]:
        stderr.print(f"      approvers: {', '.join(approval['approvers'])}", markup=False, style="dim")
    decision = "approve" if confirm("      approve?", err=True) else "decline"
    return decision, ask("      comment") or None
