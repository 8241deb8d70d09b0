"""Progress bars for pushes and backups. They print nothing unless the output is a terminal."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from stepwell.core.terminal_text import one_line
from stepwell.terminal import shown

if TYPE_CHECKING:
    from stepwell.aws.deploy.actions import Action


class Bars:
    """Progress bars of a push: one for the whole push, one for each running action. Implements `push.Watcher`."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._all = self._progress.add_task("comparing", total=None)
        self._running: dict[tuple[str, str], TaskID] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def expect(self, count: int) -> None:
        self._progress.update(self._all, description="pushing", total=count)

    def begin(self, action: Action) -> None:
        with self._lock:
            description = one_line(f"  {action.verb} {action.kind} {action.name}")
            self._running[action.kind, action.name] = self._progress.add_task(description[:70], total=None)

    def sent(self, action: Action, size: int, total: int) -> None:
        self._progress.update(self._running[action.kind, action.name], advance=size, total=total)

    def log(self, action: Action, line: str) -> None:
        self._progress.console.print(f"[dim]{shown(action.name)}[/] ", end="")
        self._progress.console.print(line, markup=False, style="dim")

    def end(self, action: Action) -> None:
        with self._lock:
            self._progress.remove_task(self._running.pop((action.kind, action.name)))
        self._progress.advance(self._all)


class Copying:
    """Progress bars of a backup or restore, one for each kind of data."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def show(self, title: str, done: int, total: int) -> None:
        if title not in self._tasks:
            self._tasks[title] = self._progress.add_task(title)
        self._progress.update(self._tasks[title], completed=done, total=total)

    def adding(self, title: str, total: int) -> Callable[[int], None]:
        """Adds a bar and returns the function that advances it. `total` is 0 if unknown."""
        task = self._progress.add_task(title, total=total or None)
        return lambda more: self._progress.advance(task, more)
