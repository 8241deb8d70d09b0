"""Temporary files of an attempt or a worker: the input and the folder TMPDIR.

Everything in a folder is removed, and nothing outside of it: links are never followed. A folder that is empty when the
attempt ends is reused, because to create and remove a folder takes 0.2 ms or more on a disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import os
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from stepwell.local.runners.orphans import kill_orphans
from stepwell.local.system.step_user import StepUser

_PREFIX = "stepwell-steps-"
_MEMORY = "/dev/shm"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Folder:
    """`tmp` is an empty folder. `input` is the path of a file, which exists only if there is an input."""

    tmp: str
    input: str


class Scratch:
    """All temporary folders of one server: inputs in memory if the system has such a folder, TMPDIRs on disk."""

    def __init__(self, user: StepUser | None = None) -> None:
        """`user` owns the files, if it is not the server's user."""
        self.user = user
        self._roots: tuple[_Root, _Root] | None = None
        self._numbers = itertools.count()
        self._empty: list[str] = []
        self._removals: set[asyncio.Future[None]] = set()

    def new(self, content: bytes | None = None) -> Folder:
        """A new folder, and a file with `content`. Raises OSError (disk full)."""
        if self._roots is None:
            disk = tempfile.gettempdir()
            memory = _MEMORY if os.access(_MEMORY, os.W_OK) else disk
            self._roots = (_Root(memory, self.user), _Root(disk, self.user))
            dead = _lock_dead_roots()
            kill_orphans(dead)
            self._remove_in_background(_remove_all, dead)
        inputs, folders = self._roots
        number = next(self._numbers)
        folder = Folder(self._empty.pop() if self._empty else folders.folder(number), f"{inputs.path}/{number}.json")
        if content is not None:
            try:
                mode = 0o644 if self.user is None else 0o600
                descriptor = os.open(folder.input, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
                with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 (plain calls: this runs often)
                    file.write(content)
                    if self.user is not None:
                        os.fchown(descriptor, self.user.uid, self.user.gid)
            except OSError:
                self.remove(folder)
                raise
        return folder

    def publish(self, files: Iterable[Path]) -> Path:
        """A folder with copies of these files that every user can read. Call `new` before."""
        assert self._roots is not None
        folder = Path(self._roots[0].path, "published")
        if not folder.is_dir():
            folder.mkdir()
            folder.chmod(0o755)
            for file in files:
                copy = folder / file.name
                copy.write_bytes(file.read_bytes())
                copy.chmod(0o644)
        return folder

    def remove(self, folder: Folder) -> None:
        """Removes a folder without blocking; a folder that is not empty is removed in a thread."""
        with contextlib.suppress(OSError):
            os.unlink(folder.input)  # noqa: PTH108
        if _is_reusable(folder.tmp):
            self._empty.append(folder.tmp)
        else:
            self._remove_in_background(remove_tree, folder.tmp)

    def _remove_in_background(self, remove: Callable[[T], None], what: T) -> None:
        removal = asyncio.get_running_loop().run_in_executor(None, remove, what)
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)

    async def close(self) -> None:
        await asyncio.gather(*self._removals, return_exceptions=True)
        roots, self._roots = self._roots or (), None
        await asyncio.to_thread(kill_orphans, [root.path for root in roots])  # daemons that steps have started
        for root in roots:
            await asyncio.to_thread(root.remove)


class _Root:
    """A folder that is locked while its server lives. The next server removes folders of dead servers."""

    def __init__(self, parent: str, user: StepUser | None) -> None:
        self._user = user
        new = tempfile.mkdtemp(prefix="stepwell-new-", dir=parent)
        if user is not None:
            os.chmod(new, 0o711)  # noqa: PTH101 (others may enter it; folders in it belong to that user)
        self._lock = _locked(new)  # before it gets the name by which other servers find it
        self.path = f"{parent}/{_PREFIX}{new.rpartition('-')[2]}"
        os.rename(new, self.path)  # noqa: PTH104

    def folder(self, number: int) -> str:
        path = f"{self.path}/{number}"
        os.mkdir(path, 0o700)  # noqa: PTH102
        if self._user is not None:
            os.chown(path, self._user.uid, self._user.gid)
        return path

    def remove(self) -> None:
        remove_tree(self.path)
        os.close(self._lock)


def _is_reusable(folder: str) -> bool:
    try:
        return os.lstat(folder).st_mode == stat.S_IFDIR | 0o700 and not os.listdir(folder)  # noqa: PTH208
    except OSError:
        return False


def remove_tree(path: str) -> None:
    """Removes a folder of any depth and size. `rm` and `chmod -R` follow no links below their arguments."""
    with contextlib.suppress(OSError):
        if _run("rm", "-rf", "--", path) != 0 and not os.path.islink(path):  # noqa: PTH114
            _run("chmod", "-R", "u+rwx", "--", path)
            _run("rm", "-rf", "--", path)


def _run(*argv: str) -> int:
    return subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    ).returncode


def _locked(root: str) -> int:
    descriptor = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _lock_dead_roots() -> dict[str, int]:
    """The folders of servers that were killed, each with the descriptor of the lock that this takes."""
    dead = {}
    for parent in {_MEMORY, tempfile.gettempdir()}:
        for root in Path(parent).glob(f"{_PREFIX}*"):
            with contextlib.suppress(OSError):
                if root.lstat().st_uid == os.getuid():
                    dead[str(root)] = _locked(str(root))
    return dead


def _remove_all(locked: Mapping[str, int]) -> None:
    for root, descriptor in locked.items():
        remove_tree(root)
        os.close(descriptor)
