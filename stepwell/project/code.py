"""The code of a step: the list of files, and their hash.

Equal hashes mean equal code. The hash covers relative paths, exec bits, link targets and bytes. Each part is hashed
with a length or a fixed size, so two different folders never hash the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol

from stepwell.project.leftovers import is_leftover

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

LARGEST = 250 * 1024 * 1024
MOST_FILES = 200_000
_EXCLUDED = frozenset({".git", ".env", "__pycache__", ".stepwell"})
_IGNORE_FILE = ".stepwellignore"
_CHUNK = 1024 * 1024


class CodeError(Exception):
    """A step's code cannot be used. The message contains the reason and the cure."""


@dataclass(frozen=True, slots=True)
class CodeFile:
    path: str  # relative to the code's folder, with /
    kind: str  # f: a file, x: an executable file, l: a link
    digest: bytes  # SHA-256 of the bytes, or of the link's target


@dataclass(frozen=True, slots=True)
class StepCode:
    folder: Path
    file: str | None  # the file's name, if the step's path is a single file
    files: tuple[CodeFile, ...]
    hash: str  # hex


def resolve(folder: Path, path: str) -> Path:
    """The real path of a step's `file://` path. It must be inside the function's `folder`. Raises CodeError."""
    relative = path.removeprefix("file://")
    try:
        found = (folder / relative).resolve(strict=True)
    except FileNotFoundError:
        cure = _other_spelling(folder / relative) or "create it, or correct the path"
        raise CodeError(f"{relative!r} does not exist in {folder}; {cure}") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise CodeError(f"{relative!r} cannot be followed: {error}") from None
    if not found.is_relative_to(folder.resolve()):
        raise CodeError(
            f"{relative!r} leads out of the function's folder, to {found}; move the step's code into the folder"
        )
    return found


def _other_spelling(path: Path) -> str | None:
    """A hint if a file exists whose name differs only in upper and lower case."""
    with suppress(OSError):
        for other in path.parent.iterdir():
            if other.name.casefold() == path.name.casefold():
                return f"there is {other.name!r}, which differs in upper and lower case"
    return None


def read_code(path: Path, function_folder: Path) -> StepCode:
    """Lists and hashes the files of the step whose code is at `path` (a resolved folder or file). Raises CodeError.

    The `.stepwellignore` of the function's folder counts, and the one of the step's folder. Patterns are relative to
    the folder of their file.
    """
    try:
        if path.is_dir():
            folder, file = path, None
            paths = walk(folder, _Ignored(folder, {function_folder.resolve(), folder}))
            names = sorted(islice(paths, MOST_FILES + 1), key=os.fsencode)
            if len(names) > MOST_FILES:
                raise CodeError(
                    f"the code in {shown_path(folder)} has more than {MOST_FILES:,} files;"
                    f" list in {_IGNORE_FILE} the files that are not needed"
                )
        else:
            folder, file, names = path.parent, path.name, [path.name]
        environments = virtual_environments(names)
        files, left = [], LARGEST
        for name in names:
            found, size = read_file(folder, name, left, environments)
            files.append(found)
            left -= size
    except OSError as error:
        raise CodeError(f"cannot read {shown_path(error.filename or path)}: {error.strerror}") from None
    return StepCode(folder, file, tuple(files), hash_of(files))


def virtual_environments(names: Iterable[str]) -> frozenset[str]:
    """The folders among these files that are Python virtual environments, recognised by their `pyvenv.cfg`."""
    return frozenset(folder for name in names for folder, _, file in [name.rpartition("/")] if file == "pyvenv.cfg")


def dotenv(folder: Path) -> dict[str, str]:
    """The variables of the `.env` file in this folder; empty without such a file. Raises CodeError."""
    file = folder / ".env"
    if not file.is_file():
        return {}
    from dotenv import dotenv_values  # imported late: few steps have a .env file

    try:
        values = dotenv_values(file, interpolate=False, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CodeError(f"cannot read {file}: {error}") from None
    found = {name: value for name, value in values.items() if value is not None}
    if any("\0" in name + value for name, value in found.items()):
        raise CodeError(f"{file} contains a NUL character, which cannot be passed to a program; remove it")
    return found


class Filter(Protocol):
    """Decides which paths are excluded from the code."""

    def excludes(self, path: str, is_folder: bool) -> bool: ...


class _Ignored:
    """Excludes what `.stepwellignore` ignores, and leftovers of editors, unless a `!` pattern includes them.

    `root`: the code's folder; `folders`: the folders whose `.stepwellignore` counts.
    """

    def __init__(self, root: Path, folders: set[Path]) -> None:
        self._root = root.name
        self._specs = [
            ("" if folder == root else f"{root.relative_to(folder).as_posix()}/", _patterns(folder / _IGNORE_FILE))
            for folder in folders
            if (folder / _IGNORE_FILE).is_file()
        ]

    def excludes(self, path: str, is_folder: bool) -> bool:
        """Whether this path, relative to the code's folder, is excluded."""
        above, _, name = path.rpartition("/")
        if name in _EXCLUDED:
            return True
        if name == ".cache" and (above.rpartition("/")[2] or self._root) == "node_modules":
            return True
        suffix = "/" if is_folder else ""
        items = {spec.check_file(f"{prefix}{path}{suffix}").include for prefix, spec in self._specs}
        return True in items or (is_leftover(name) and False not in items)


def _patterns(file: Path) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec  # imported late: few steps have such a file

    try:
        return GitIgnoreSpec.from_lines(file.read_text("utf-8").splitlines())
    except ValueError as error:
        raise CodeError(f"{file} has an invalid pattern: {error}") from None


def walk(root: Path, ignored: Filter) -> Iterator[str]:
    """The relative paths of all files and links that belong to the code, with `/` as separator."""
    folders = [""]
    while folders:
        above = folders.pop()
        with os.scandir(f"{root}/{above}") as entries:
            for entry in entries:
                path = above + entry.name
                is_folder = entry.is_dir(follow_symlinks=False)
                if ignored.excludes(path, is_folder):
                    continue
                if is_folder:
                    folders.append(f"{path}/")
                else:
                    yield path


def read_file(folder: Path, name: str, limit: int, environments: frozenset[str]) -> tuple[CodeFile, int]:
    """Reads one file or link of the code: its entry, and its size in bytes. Raises CodeError above `limit` bytes."""
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
            f"{shown_path(path)} is not a file but a socket, pipe or device; remove it or add it to {_IGNORE_FILE}"
        )
    digest, size = hashlib.sha256(), 0
    for chunk in chunks(path):
        digest.update(chunk)
        size += len(chunk)
        if size > limit:
            raise CodeError(
                f"the code in {shown_path(folder)} is larger than 250 MB; list in {_IGNORE_FILE} the files that are"
                " not needed"
            )
    return CodeFile(name, "x" if mode & stat.S_IXUSR else "f", digest.digest()), size


def _check_link(folder: Path, link: Path, text: str) -> None:
    """Raises CodeError if a link leads out of the folder.

    Both the text of the link and the resolved path must stay inside, because the text is what the copy contains.
    """
    depth = len(link.parent.relative_to(folder).parts)
    inside = not text.startswith("/")
    for part in Path(text).parts:
        depth += -1 if part == ".." else 1
        inside &= depth >= 0
    try:
        inside &= link.resolve().is_relative_to(folder)
    except (OSError, RuntimeError):
        raise CodeError(f"{shown_path(link)} is a link that leads to itself; remove it") from None
    if not inside:
        cure = f"copy the target, or add the link to {_IGNORE_FILE}"
        raise CodeError(
            f"{shown_path(link)} is a link that leads out of the step's folder, to {shown_path(text)}; {cure}"
        )


def chunks(path: Path) -> Iterator[bytes]:
    """The bytes of a regular file, in pieces of 1 MiB."""
    # The flags prevent following a link, and blocking on a pipe, if one has just replaced the file.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def hash_of(files: Iterable[CodeFile]) -> str:
    """The hash of code that consists of these files. The order of the files must be the order of their paths."""
    whole = hashlib.sha256(b"stepwell code 1\n")
    for file in files:
        path = os.fsencode(file.path)
        whole.update(file.kind.encode() + len(path).to_bytes(4, "big") + path + file.digest)
    return whole.hexdigest()


def shown_path(path: str | Path) -> str:
    """The path for a message. File names can contain any bytes; invalid ones are replaced."""
    return os.fsencode(path).decode(errors="replace")
