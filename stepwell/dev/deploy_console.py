"""Prints what `stepwell dev` has found on disk: functions, event types, webhooks, and problems."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.table import Table

from stepwell.dev.output import Output
from stepwell.event_types.registry import TypeChange, TypeRefused
from stepwell.local.server import Deployed
from stepwell.local.webhooks import Synchronised
from stepwell.project.load import PlacedProblem
from stepwell.project.only_on_aws import only_on_aws
from stepwell.project.rule_files import FoundRules
from stepwell.terminal import shown

_MAX_FUNCTIONS = 50  # functions to list at the start: each row takes 0.5 ms of the event loop's time


class DeployConsole:
    def __init__(self, output: Output) -> None:
        self._line, self._output = output.line, output
        self._deployed: list[Deployed] = []
        self._is_ready = False
        self._reported: frozenset[PlacedProblem] = frozenset()
        self._passed_over: frozenset[str] = frozenset()
        self._wrong_types: frozenset[str] = frozenset()
        self._wrong_webhooks: frozenset[str] = frozenset()
        self._wrong_sources: frozenset[str] = frozenset()

    def deployed(self, deployed: Deployed) -> None:
        function_id = deployed.function.definition.id
        registered = deployed.registered
        changed = registered is None or registered.is_new or not self._is_ready
        if not changed:
            return
        for warning in (*deployed.function.warnings(), *only_on_aws(deployed.function)):
            self._line("warning", f"[yellow]warning[/] {shown(str(warning))}", message=str(warning))
        for reason in deployed.missing:
            self._line(
                "missing",
                f"[yellow]not live[/] {shown(function_id)}: {shown(reason)}",
                function=function_id,
                why=reason,
            )
        self._report_inactive(deployed)
        if self._is_ready and registered is not None and deployed.is_live:
            text = f"[green]live[/] {shown(function_id)} v{registered.version}"
            self._line("live", text, function=function_id, version=registered.version)
        else:
            self._deployed.append(deployed)

    def _report_inactive(self, deployed: Deployed) -> None:
        """Prints why a deployed function starts no runs, if so."""
        function_id, reason = deployed.function.definition.id, ""
        if deployed.registered is not None and not deployed.is_live:
            reason = "the function was deleted; it becomes live again when it changes"
            text = f"[yellow]not live[/] {shown(function_id)}: {shown(reason)}"
        elif deployed.is_paused:
            reason = f"no runs start until `stepwell resume {function_id}`"
            text = f"[yellow]paused[/] {shown(function_id)}: {shown(reason)}"
        if reason:
            self._line("missing", text, function=function_id, why=reason)

    def removed(self, function_id: str) -> None:
        text = f"[yellow]removed[/] {shown(function_id)}: the definition was deleted"
        self._line("removed", text, function=function_id)

    def problems(self, problems: Sequence[PlacedProblem]) -> None:
        """Prints problems, each once until it is fixed."""
        for problem in problems:
            if problem not in self._reported:
                self._line("problem", f"[red]error[/] {shown(str(problem))}", message=str(problem))
        self._reported = frozenset(problems)

    def passed_over(self, definitions: Sequence[PlacedProblem]) -> None:
        """Prints definitions that are not used, each once until that is fixed."""
        self._passed_over = self._new(
            [("warning", "[yellow]warning[/]", str(definition)) for definition in definitions], self._passed_over
        )

    def types(
        self,
        results: Sequence[TypeChange | TypeRefused],
        problems: Sequence[PlacedProblem],
        warnings: Sequence[PlacedProblem],
    ) -> None:
        """Prints new event types, and each problem with types once until it is fixed."""
        wrong = [("problem", "[red]error[/]", str(problem)) for problem in problems]
        wrong += [("problem", "[red]error[/]", str(result)) for result in results if isinstance(result, TypeRefused)]
        wrong += [("warning", "[yellow]warning[/]", str(warning)) for warning in warnings]
        self._wrong_types = self._new(wrong, self._wrong_types)
        for result in results:
            if isinstance(result, TypeChange) and result.what != "unchanged":
                detail = f"{shown(result.version)} {shown(result.what)}, {shown(result.policy)}"
                text = f"[green]type[/] {shown(result.name)} {detail}"
                self._line(
                    "type", text, name=result.name, version=result.version, change=result.what, policy=result.policy
                )

    def webhooks(self, done: Synchronised, found: FoundRules) -> None:
        """Prints new and removed webhooks, and each problem with webhooks once until it is fixed."""
        wrong = [("problem", "[red]error[/]", str(problem)) for problem in found.problems]
        wrong += [("warning", "[yellow]warning[/]", str(warning)) for warning in found.warnings]
        self._wrong_webhooks = self._new(wrong, self._wrong_webhooks)
        for name in done.changed:
            self._line("webhook", f"[green]webhook[/] {shown(name)} at /webhooks/{shown(name)}", name=name)
        for name in done.removed:
            self._line("removed", f"[yellow]removed[/] webhook {shown(name)}: the file was deleted", webhook=name)

    def sources(self, done: Synchronised, found: FoundRules, missing: Sequence[PlacedProblem]) -> None:
        """Prints new and removed sources, and each problem with sources once until it is fixed."""
        wrong = [("problem", "[red]error[/]", str(problem)) for problem in (*found.problems, *missing)]
        wrong += [("warning", "[yellow]warning[/]", str(warning)) for warning in found.warnings]
        self._wrong_sources = self._new(wrong, self._wrong_sources)
        for name in done.changed:
            self._line("source", f"[green]source[/] {shown(name)}", name=name)
        for name in done.removed:
            self._line("removed", f"[yellow]removed[/] source {shown(name)}: the file was deleted", source=name)

    def _new(self, wrong: Sequence[tuple[str, str, str]], reported: frozenset[str]) -> frozenset[str]:
        for kind, label, message in wrong:
            if message not in reported:
                self._line(kind, f"{label} {shown(message)}", message=message)
        return frozenset(message for _, _, message in wrong)

    def trouble(self, message: str) -> None:
        self._line("problem", f"[red]error[/] {shown(message)}", message=message)

    def ready(self, url: str, paths: Iterable[Path], broken: int, faktory: str = "") -> None:
        """Prints the addresses and the live functions. `broken`: how many definitions are not in service. `faktory`:
        the address for Faktory workers, if there is one."""
        self._is_ready = True
        live = [d for d in self._deployed if d.is_live]
        if live:
            table = Table("function", "version", "starts on", "steps", box=None, header_style="dim", pad_edge=False)
            for deployed in live[:_MAX_FUNCTIONS]:
                definition, registered = deployed.function.definition, deployed.registered
                triggers = [t.event if t.event else f"cron {t.cron}" for t in definition.triggers]
                version = f"v{registered.version}" if registered else ""
                version += ", paused" if deployed.is_paused else ""
                table.add_row(
                    shown(definition.id), version, "\n".join(map(shown, triggers)), shown(", ".join(definition.steps))
                )
            more = len(live) - _MAX_FUNCTIONS
            self._output.table(table, f"[dim]... {more:,} more; `stepwell functions` lists all[/]" if more > 0 else "")
        if broken:
            text = f"{broken} definitions are not in service, see above"
            self._line("broken", f"[yellow]warning[/] {shown(text)}", count=broken)
        elif not live:
            where = ", ".join(str(path) for path in paths)
            self._line("empty", f"no functions below {shown(where)} yet; `stepwell init` creates one", paths=where)
        self._line(
            "ready",
            f"\n[bold green]ready[/] at [bold]{shown(url)}[/]  send events to {shown(url)}/e/dev"
            + (f"\nfaktory workers connect to [bold]{shown(faktory)}[/]" if faktory else ""),
            url=url,
            **({"faktory": faktory} if faktory else {}),
        )
