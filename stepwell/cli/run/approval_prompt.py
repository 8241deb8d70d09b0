"""What is asked of people while `stepwell run` runs a function: decided by options, else asked at the terminal."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stepwell.cli.commands.approvals import own_name
from stepwell.cli.ui.output import ask, confirm, console, fail, stderr, warn
from stepwell.terminal import shown

if TYPE_CHECKING:
    from stepwell.api.views.models import ApprovalView, RunView
    from stepwell.local.server import LocalServer


class ApprovalPrompt:
    """`approve`, `decline`: steps on which it is decided already. `may_ask`: somebody sits there."""

    def __init__(
        self, definition: Mapping[str, Any], approve: Sequence[str], decline: Sequence[str], *, may_ask: bool
    ) -> None:
        steps = definition["steps"]
        asking = [step for step in steps if steps[step]["runtime"]["type"] == "approval"]
        for option, given in (("--approve", approve), ("--decline", decline)):
            for step in given:
                if step not in asking:
                    there = f"there is {', '.join(asking)}" if asking else "there is none"
                    fail(f"{option} {step}: {definition['id']} has no such step with the runtime approval; {there}", 2)
        if both := set(approve) & set(decline):
            fail(f"give --approve or --decline for {min(both)}, not both", 2)
        self._decided = {**dict.fromkeys(approve, "approve"), **dict.fromkeys(decline, "decline")}
        self._may_ask = may_ask and sys.stdin.isatty() and sys.stdout.isatty()
        self._warned: set[str] = set()

    async def decide(self, server: LocalServer, view: RunView) -> bool:
        """Decide on an open approval; False if there is none on which anybody decides here."""
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
                warn(f"nobody decides on {step} here, so its time runs out; give --approve {step} or --decline {step}")
        return False

    async def _send(self, server: LocalServer, asked: ApprovalView, word: str, comment: str | None) -> None:
        from stepwell.core.run.approvals import decided

        platform = server.platform
        url = asked["approve_url"] if word == "approve" else asked["decline_url"]
        link = platform.links.read(url.rpartition("/")[2])
        assert link is not None
        await platform.runs.decide(link, decided(link.decision, comment, own_name(), platform.clock.now()))


def _ask(step: str, asked: ApprovalView) -> tuple[str, str | None]:
    """What somebody at the terminal decides, and why."""
    console.print(f"[bold blue]asks[/]  [bold]{shown(step)}[/]  ", end="")
    console.print(asked["message"], markup=False, soft_wrap=True)
    if asked["approvers"]:
        stderr.print(f"      of {', '.join(asked['approvers'])}", markup=False, style="dim")
    word = "approve" if confirm("      approve?", err=True) else "decline"
    return word, ask("      comment") or None
