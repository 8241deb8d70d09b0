"""The code of a step: which files belong to it, their hash, and the read-only copy that attempts run in.

One rule: equal hashes mean equal code. The hash covers relative paths, exec bits, link texts and bytes, each framed so
that no two different folders look alike; a copy is checked against it before anybody sees it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from stepwell.project.leftovers import is_leftover

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

LARGEST = 250 * 1024 * 1024
MOST_FILES = 200_000
CHANGED = ".changed-"  # begins the names of copies that were put aside
_EXCLUDED = frozenset({".git", ".env", "__pycache__", ".stepwell"})
_IGNORE_FILE = ".stepwellignore"
_CHUNK = 1024 * 1024


class CodeError(Exception):
    """A step's code cannot be used as it is; the message says why, and the cure."""


@dataclass(frozen=True, slots=True)
class CodeFile:
    path: str  # relative to the code's folder, with /
    kind: str  # f: a file, x: an executable file, l: a link
    digest: bytes  # SHA-256 of the bytes, or of the link's text


@dataclass(frozen=True, slots=True)
class StepCode:
    folder: Path
    file: str | None  # the name of the only file, if the step's path is one
    files: tuple[CodeFile, ...]
    hash: str  # hex


# --- finding and hashing ---------------------------------------------------------------------------------------------


def resolve(folder: Path, path: str) -> Path:
    """The real place of a step's `file://` path, inside the function's `folder`. Raises CodeError."""
    relative = path.removeprefix("file://")
    try:
        found = (folder / relative).resolve(strict=True)
    except FileNotFoundError:
        cure = _other_spelling(folder / relative) or "make it, or correct the path"
        raise CodeError(f"{relative!r} does not exist in {folder}; {cure}") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise CodeError(f"{relative!r} cannot be followed: {error}") from None
    if not found.is_relative_to(folder.resolve()):
        raise CodeError(f"{relative!r} leads out of the function's folder, to {found}; move the step's code into it")
    return found


def _other_spelling(path: Path) -> str | None:
    """A hint at what is there, and called so but for capital letters."""
    with suppress(OSError):
        for other in path.parent.iterdir():
            if other.name.casefold() == path.name.casefold():
                return f"there is {other.name!r}, and names differ by small and capital letters"
    return None


def read_code(path: Path, function_folder: Path) -> StepCode:
    """The files of the step whose code is at `path` (a folder or a file, resolved), and their hash. Raises CodeError.

    Patterns of `.stepwellignore` count in the function's folder and in the step's, relative to where they stand.
    """
    try:
        if path.is_dir():
            folder, file = path, None
            walk = _walk(folder, _Ignored(folder, {function_folder.resolve(), folder}))
            names = sorted(islice(walk, MOST_FILES + 1), key=os.fsencode)
            if len(names) > MOST_FILES:
                raise CodeError(
                    f"the code in {_shown(folder)} has more than {MOST_FILES:,} files;"
                    f" name what is not needed in {_IGNORE_FILE}"
                )
        else:
            folder, file, names = path.parent, path.name, [path.name]
        environments = virtual_environments(names)
        files, left = [], LARGEST
        for name in names:
            found, size = _read(folder, name, left, environments)
            files.append(found)
            left -= size
    except OSError as error:
        raise CodeError(f"cannot read {_shown(error.filename or path)}: {error.strerror}") from None
    return StepCode(folder, file, tuple(files), hash_of(files))


def virtual_environments(names: Iterable[str]) -> frozenset[str]:
    """The folders among these files that are virtual environments of Python, by the file that makes them one."""
    return frozenset(folder for name in names for folder, _, file in [name.rpartition("/")] if file == "pyvenv.cfg")


def dotenv(folder: Path) -> dict[str, str]:
    """The variables that `.env` in this folder sets, if it is there. Raises CodeError."""
    file = folder / ".env"
    if not file.is_file():
        return {}
    from dotenv import dotenv_values  # few steps have one

    try:
        values = dotenv_values(file, interpolate=False, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CodeError(f"cannot read {file}: {error}") from None
    found = {name: value for name, value in values.items() if value is not None}
    if any("\0" in name + value for name, value in found.items()):
        raise CodeError(f"{file} holds a NUL character, which no program can be given; remove it")
    return found


class _Ignored:
    """What is no part of a step's code, as gitignore decides it. A pattern with `!` brings back leftovers.

    `root`: the code's folder; `folders`: those whose `.stepwellignore` counts.
    """

    def __init__(self, root: Path, folders: set[Path]) -> None:
        self._root = root.name
        self._specs = [
            ("" if folder == root else f"{root.relative_to(folder).as_posix()}/", _patterns(folder / _IGNORE_FILE))
            for folder in folders
            if (folder / _IGNORE_FILE).is_file()
        ]

    def holds(self, path: str, is_folder: bool) -> bool:
        """Of a path relative to the code's folder."""
        above, _, name = path.rpartition("/")
        if name in _EXCLUDED:
            return True
        if name == ".cache" and (above.rpartition("/")[2] or self._root) == "node_modules":
            return True
        suffix = "/" if is_folder else ""
        items = {spec.check_file(f"{prefix}{path}{suffix}").include for prefix, spec in self._specs}
        return True in items or (is_leftover(name) and False not in items)


def _patterns(file: Path) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec  # few steps have one

    try:
        return GitIgnoreSpec.from_lines(file.read_text("utf-8").splitlines())
    except ValueError as error:
        raise CodeError(f"{file} holds a pattern that cannot be read: {error}") from None


def _walk(root: Path, ignored: _Ignored | _Leavings) -> Iterator[str]:
    """The relative paths of all files and links that belong to the code, with /."""
    folders = [""]
    while folders:
        above = folders.pop()
        with os.scandir(f"{root}/{above}") as entries:
            for entry in entries:
                path = above + entry.name
                is_folder = entry.is_dir(follow_symlinks=False)
                if ignored.holds(path, is_folder):
                    continue
                if is_folder:
                    folders.append(f"{path}/")
                else:
                    yield path


def _read(folder: Path, name: str, limit: int, environments: frozenset[str]) -> tuple[CodeFile, int]:
    """One file of the code and its size, at most `limit`."""
    path = folder / name
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        text = str(path.readlink())
        parents = PurePosixPath(name).parents
        if ".venv" not in PurePosixPath(name).parts[:-1] and environments.isdisjoint(map(str, parents)):
            _check_link(folder, path, text)
        return CodeFile(name, "l", hashlib.sha256(os.fsencode(text)).digest()), 0
    if not stat.S_ISREG(mode):
        raise CodeError(
            f"{_shown(path)} is no file but a socket, pipe or device; remove it or add it to {_IGNORE_FILE}"
        )
    digest, size = hashlib.sha256(), 0
    for chunk in _chunks(path):
        digest.update(chunk)
        size += len(chunk)
        if size > limit:
            raise CodeError(
                f"the code in {_shown(folder)} has more than 250 MB; name what is not needed in {_IGNORE_FILE}"
            )
    return CodeFile(name, "x" if mode & stat.S_IXUSR else "f", digest.digest()), size


def _check_link(folder: Path, link: Path, text: str) -> None:
    """A link must stay inside as it is written, so that it does in the copy, and when all others are followed too."""
    depth = len(link.parent.relative_to(folder).parts)
    inside = not text.startswith("/")
    for part in Path(text).parts:
        depth += -1 if part == ".." else 1
        inside &= depth >= 0
    try:
        inside &= link.resolve().is_relative_to(folder)
    except (OSError, RuntimeError):
        raise CodeError(f"{_shown(link)} is a link that leads to itself; remove it") from None
    if not inside:
        cure = f"copy what it names, or add it to {_IGNORE_FILE}"
        raise CodeError(f"{_shown(link)} is a link that leads out of the step's folder, to {_shown(text)}; {cure}")


def _chunks(path: Path) -> Iterator[bytes]:
    # Neither follows a link nor blocks on a pipe that has just taken the file's place.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def hash_of(files: Iterable[CodeFile]) -> str:
    """The hash of code that consists of these files, in the order of their paths."""
    whole = hashlib.sha256(b"stepwell code 1\n")
    for file in files:
        path = os.fsencode(file.path)
        whole.update(file.kind.encode() + len(path).to_bytes(4, "big") + path + file.digest)
    return whole.hexdigest()


def _shown(path: str | Path) -> str:
    return os.fsencode(path).decode(errors="replace")


# --- copies ----------------------------------------------------------------------------------------------------------


def materialise(code: StepCode, into: Path) -> Path:
    """The read-only copy of this code, `<into>/<hash>`, made unless it is there and right. Raises CodeError, OSError
    (disk full).

    The copy gets its name only when it is whole. Copiers into one folder take turns, so what is half made when one
    begins was left by a crash. A copy that was changed is put aside, since attempts may still run in it.
    """
    target = into / code.hash
    if is_copy(target, code.hash):
        return target
    into.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(into / ".lock", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as lock:
        os.fchmod(lock.fileno(), 0o600)  # who can open it can keep others from it
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_copy(target, code.hash):
            unfinished, changed = into / ".unfinished", into / f"{CHANGED}{code.hash}"
            remove(unfinished)
            remove(changed)
            try:
                _copy(code, unfinished)
                if target.is_dir():
                    target.rename(changed)
                unfinished.rename(target)
            except BaseException:
                remove(unfinished)
                raise
    return target


def is_copy(folder: Path, code_hash: str) -> bool:
    """Whether a copy that was made here is still what its hash says. Every file counts but what Python leaves."""
    if not folder.is_dir():
        return False
    folder = folder.resolve()
    try:
        names = sorted(_walk(folder, _Leavings()), key=os.fsencode)
        environments = virtual_environments(names)
        return hash_of(_read(folder, name, LARGEST, environments)[0] for name in names) == code_hash
    except (OSError, CodeError):
        return False


class _Leavings:
    """What is no part of a copy."""

    def holds(self, path: str, is_folder: bool) -> bool:
        return is_folder and path.rpartition("/")[2] == "__pycache__"


def remove(folder: Path) -> None:
    """Delete a read-only copy, if it is there."""
    if not folder.is_dir():
        return
    for parent, _, _ in os.walk(folder):
        Path(parent).chmod(0o700)
    shutil.rmtree(folder)


def _copy(code: StepCode, to: Path) -> None:
    to.mkdir()
    for file in code.files:
        copy = to / file.path
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            digest = _copy_one(code.folder / file.path, copy, file.kind)
        except (FileNotFoundError, NotADirectoryError):
            digest = None
        if digest != file.digest:
            raise CodeError(f"{_shown(code.folder / file.path)} changed while it was copied; load the function again")
    for parent, _, _ in os.walk(to, topdown=False):
        Path(parent).chmod(0o555)


def _copy_one(source: Path, copy: Path, kind: str) -> bytes | None:
    """Copy a file or link; the digest of what was copied, None if it is of another kind by now."""
    mode = source.lstat().st_mode
    if stat.S_ISLNK(mode) and kind == "l":
        text = str(source.readlink())
        copy.symlink_to(text)
        return hashlib.sha256(os.fsencode(text)).digest()
    if not stat.S_ISREG(mode) or kind != ("x" if mode & stat.S_IXUSR else "f"):
        return None
    digest = hashlib.sha256()
    with copy.open("xb") as file:
        for chunk in _chunks(source):
            digest.update(chunk)
            file.write(chunk)
        os.fchmod(file.fileno(), 0o555 if kind == "x" else 0o444)
    return digest.digest()
