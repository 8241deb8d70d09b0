"""Files that live as long as an attempt or a worker: its input and its TMPDIR.

One rule: whatever is left in a folder is removed, and nothing outside it; links are never followed.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_PREFIX = "stepwell-steps-"
_FRESH_S = 60.0


@dataclass(frozen=True, slots=True)
class Folder:
    """`tmp` is an empty folder, `input` a file beside it (made only if there is an input)."""

    tmp: str
    input: str


class Scratch:
    """All folders of one server. The root is locked while the server lives; roots without a living owner go."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._root: str | None = None
        self._lock = -1
        self._removals: set[asyncio.Future[None]] = set()

    def new(self, content: bytes | None = None) -> Folder:
        """Raises OSError (disk full)."""
        if self._root is None:
            self._root = tempfile.mkdtemp(prefix=_PREFIX)
            self._lock = _locked(self._root)
            self._remove_in_background(_remove_orphans)
        path = f"{self._root}/{next(self._numbers)}"
        folder = Folder(path, f"{path}.json")
        os.mkdir(path, 0o700)  # noqa: PTH102 (plain calls: this runs for every attempt)
        if content is not None:
            try:
                descriptor = os.open(folder.input, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
                with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123
                    file.write(content)
            except OSError:
                self.remove(folder)
                raise
        return folder

    def remove(self, folder: Folder) -> None:
        """Returns at once; a folder that is not empty is removed in a thread."""
        with contextlib.suppress(OSError):
            os.unlink(folder.input)  # noqa: PTH108
        try:
            os.rmdir(folder.tmp)  # noqa: PTH106
        except FileNotFoundError:
            pass
        except OSError:
            self._remove_in_background(remove_tree, folder.tmp)

    def _remove_in_background(self, remove: Callable[..., None], *paths: str) -> None:
        removal = asyncio.get_running_loop().run_in_executor(None, remove, *paths)
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)

    async def close(self) -> None:
        if self._root is None:
            return
        await asyncio.gather(*self._removals, return_exceptions=True)
        root, self._root = self._root, None
        await asyncio.to_thread(remove_tree, root)
        os.close(self._lock)


def remove_tree(path: str) -> None:
    """Remove a folder of any depth and size. `rm` and `chmod -R` follow no links below what they are given."""
    with contextlib.suppress(OSError):
        if _run("rm", "-rf", "--", path) != 0:
            _run("chmod", "-R", "u+rwx", "--", path)
            _run("rm", "-rf", "--", path)


def _run(*argv: str) -> int:
    return subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    ).returncode


def _locked(root: str) -> int:
    descriptor = os.open(root, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def _remove_orphans() -> None:
    """Remove what servers left behind that were killed."""
    for root in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            found = root.lstat()
            if found.st_uid != os.getuid() or time.time() - found.st_mtime < _FRESH_S:
                continue  # a root is made before it is locked
            descriptor = _locked(str(root))
        except OSError:
            continue
        remove_tree(str(root))
        os.close(descriptor)
