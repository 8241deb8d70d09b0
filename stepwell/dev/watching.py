"""Waits for changes below folders, which git and rsync may remove and create again.

No change is missed: watching begins before the files are read, and a replaced folder counts as a change.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from stepwell.project.leftovers import is_leftover

_POLL_S = 1.0
_IGNORED = frozenset({".git", ".stepwell", ".tox", ".venv", "__pycache__", "node_modules"})
_COMPILED = (".pyc", ".pyo", ".pyd")

_Stamp = tuple[int, int] | None
_Changes = set[tuple[Any, str]]  # kind of change, path


class Watcher:
    """Watches folders for changes.

    Changes of the paths in `own`, the server's own files, are ignored, also those of paths that begin with them. If
    watching is not possible, `trouble` is called once with the reason, and the folders are polled every second.
    """

    def __init__(self, own: Iterable[Path], trouble: Callable[[str], None]) -> None:
        self._own = tuple(os.fspath(path.resolve()) for path in own)
        self._trouble, self._is_reported = trouble, False
        self._stamps: dict[Path, _Stamp] = {}
        self._changes: AsyncGenerator[_Changes] | None = None
        self._next: asyncio.Future[_Changes] | None = None

    async def follow(self, folders: Iterable[Path]) -> bool:
        """Watches these folders from now on. Returns whether they differ from the folders watched before."""
        stamps = {folder.absolute(): _stamp(folder) for folder in folders}
        if stamps == self._stamps:
            return False
        await self._stop()
        self._stamps = stamps
        await self._start()
        return True

    async def change(self) -> None:
        """Returns when something has changed."""
        while True:
            if self._next is None:
                await asyncio.sleep(_POLL_S)
                await self._start()
                return
            try:
                changes = await self._next
            except Exception as error:  # such as a name that is not UTF-8, or too many folders
                if not self._is_reported:
                    self._trouble(f"cannot watch for changes, so files are read every second: {_reason(error)}")
                self._is_reported, self._next = True, None
                continue
            self._await_next()
            if any(kind.name == "deleted" and Path(path) in self._stamps for kind, path in changes):
                self._stamps = {}  # a new folder may have the same path and the same inode number
            if changes or any(_stamp(folder) != stamp for folder, stamp in self._stamps.items()):
                return

    async def _start(self) -> None:
        from watchfiles import awatch  # imported late, so that the server is ready sooner

        existing = [folder for folder, stamp in self._stamps.items() if stamp is not None]
        if not existing:
            return
        self._changes = awatch(
            *existing,
            watch_filter=lambda _, path: self._is_of_interest(path),
            debounce=300,
            step=50,
            rust_timeout=round(_POLL_S * 1000),
            yield_on_timeout=True,
            ignore_permission_denied=True,
        )
        self._await_next()
        await asyncio.sleep(0)  # lets the watcher start

    def _await_next(self) -> None:
        assert self._changes is not None
        self._next = asyncio.ensure_future(anext(self._changes))

    async def _stop(self) -> None:
        if self._next is not None:
            self._next.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await self._next
        if self._changes is not None:
            await self._changes.aclose()
        self._changes = self._next = None

    def _is_of_interest(self, path: str) -> bool:
        if path.startswith(self._own) or path.endswith(_COMPILED):
            return False
        return not any(part in _IGNORED or is_leftover(part) for part in self._below(path))

    def _below(self, path: str) -> Sequence[str]:
        """The parts of a path below the watched folder."""
        found = Path(path)
        for folder in self._stamps:
            if found.is_relative_to(folder):
                return found.relative_to(folder).parts
        return found.parts


def _stamp(folder: Path) -> _Stamp:
    """Identifies the folder at a path, by device and inode; None if there is none."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) if isinstance(error, OSError) else "perhaps the name of a file is not UTF-8"
