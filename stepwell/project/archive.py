"""A function as one ZIP file, to be sent to a server: the definition, the steps' code, and the files beside them.

An archive may come from anyone, so unpacking it is safe. It contains only regular files and links, all inside one
folder, and is limited to the size of a function's code. Links are made after all files, and no file lies behind a link,
so nothing is written through a link.
"""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from stepwell.project.code import LARGEST, CodeError
from stepwell.project.leftovers import is_leftover
from stepwell.project.load import LoadedFunction
from stepwell.project.pushed import for_push
from stepwell.project.source import is_whole

MOST_FILES = 20_000
_CHUNK = 1024 * 1024
_FILE, _PROGRAM, _LINK = stat.S_IFREG | 0o644, stat.S_IFREG | 0o755, stat.S_IFLNK | 0o777
_LONGEST_LINK = 4096
_BESIDE = (".stepwellignore",)
_SCHEMAS = "*.schema.json"


class BadArchive(Exception):
    """The file is not an archive of a function, or is refused. The message contains the reason."""


def write_archive(function: LoadedFunction, to: IO[bytes]) -> None:
    """Writes the files of a function that are pushed.

    Raises OSError, and CodeError for files that a ZIP cannot contain.
    """
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, mode in sorted(_files(for_push(function))):
            if not is_whole(name):
                raise CodeError(f"the name of {name!r} is not in UTF-8; rename it, or add it to .stepwellignore")
            info = zipfile.ZipInfo(name)
            info.create_system = 3  # Unix: the upper half of the attributes is the mode
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            if mode == _LINK:
                text = os.fsencode((function.folder / name).readlink())
                if not _stays_inside(name, os.fsdecode(text)):
                    raise CodeError(f"{name} changed while it was packed; push again")
                archive.writestr(info, text)
                continue
            with (function.folder / name).open("rb") as source, archive.open(info, "w", force_zip64=True) as target:
                while chunk := source.read(_CHUNK):
                    target.write(chunk)


def _files(function: LoadedFunction) -> set[tuple[str, int]]:
    """The file names, relative to the function's folder, with their modes."""
    folder = function.folder.resolve()
    found = {(function.file.name, _FILE)}
    found |= {(name, _FILE) for name in _BESIDE if (folder / name).is_file()}
    found |= {(path.relative_to(folder).as_posix(), _FILE) for path in _schemas(folder)}
    modes = {"f": _FILE, "x": _PROGRAM, "l": _LINK}
    for code in function.steps.values():
        place = code.folder.resolve().relative_to(folder)
        if (code.folder / ".env").is_file():
            found.add(((place / ".env").as_posix(), _FILE))
        for file in code.files:
            if ".venv" not in PurePosixPath(file.path).parts[:-1]:
                found.add(((place / file.path).as_posix(), modes[file.kind]))
    return found


def _schemas(folder: Path) -> Iterator[Path]:
    """The files of event types beside a function, including those that triggers name."""
    for path in (*folder.glob(_SCHEMAS), *(folder / "schemas").rglob(_SCHEMAS)):
        if path.is_file() and not is_leftover(path.name):
            yield path


def unpack(file: IO[bytes], into: Path) -> None:
    """Writes the files of an archive into an empty folder. Raises BadArchive, and OSError (disk full)."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            _check(members)
            left = LARGEST
            for member in members:
                if not _is_link(member):
                    left = _unpack_one(archive, member, into / member.filename, left)
            links = [_make_link(archive, member, into) for member in members if _is_link(member)]
        _check_links(links, into)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        raise BadArchive(f"the archive cannot be read: {error}") from None
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise BadArchive("the archive has a file and a folder with the same name") from None
    except (UnicodeError, ValueError, zipfile.error) as error:
        raise BadArchive(f"the archive cannot be read: {error}") from None


def _check(members: list[zipfile.ZipInfo]) -> None:
    if not members or len(members) > MOST_FILES:
        raise BadArchive(f"an archive of a function has 1 to {MOST_FILES:,} files; this one has {len(members):,}")
    if sum(member.file_size for member in members) > LARGEST:
        raise _too_large()
    plain_names: set[str] = set()
    for member in members:
        name, kind = member.filename, stat.S_IFMT(member.external_attr >> 16)
        parts = PurePosixPath(name).parts
        if name.startswith("/") or "\\" in name or ".." in parts or not parts or ":" in parts[0]:
            raise BadArchive(f"{name[:100]!r} leads out of the function's folder")
        if kind not in (0, stat.S_IFREG, stat.S_IFLNK):
            raise BadArchive(f"{name[:100]!r} is not a file, but a device")
        if member.flag_bits & 1:
            raise BadArchive(f"{name[:100]!r} is encrypted")
        if (plain := str(PurePosixPath(name))) in plain_names:
            raise BadArchive(f"{name[:100]!r} is in the archive twice")
        plain_names.add(plain)
    links = {PurePosixPath(member.filename) for member in members if _is_link(member)}
    for name in plain_names if links else ():
        if not links.isdisjoint(PurePosixPath(name).parents):
            raise BadArchive(f"{name[:100]!r} lies behind a link")


def _is_link(member: zipfile.ZipInfo) -> bool:
    return stat.S_ISLNK(member.external_attr >> 16)


def _make_link(archive: zipfile.ZipFile, member: zipfile.ZipInfo, into: Path) -> Path:
    with archive.open(member) as source:
        text = source.read(_LONGEST_LINK + 1)
    if len(text) > _LONGEST_LINK or b"\0" in text or not _stays_inside(member.filename, os.fsdecode(text)):
        raise _leads_out(member.filename)
    link = into / member.filename
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.fsdecode(text))
    return link


def _check_links(links: list[Path], into: Path) -> None:
    """Raises BadArchive if a link leads out of the folder.

    Several links can do so together, even if each stays inside.
    """
    for link in links:
        try:
            is_inside = link.resolve().is_relative_to(into.resolve())
        except (OSError, RuntimeError):
            is_inside = False  # a link that leads to itself
        if not is_inside:
            raise _leads_out(str(link.relative_to(into)))


def _leads_out(name: str) -> BadArchive:
    return BadArchive(f"{name[:100]!r} is a link that leads out of the function's folder")


def _stays_inside(name: str, text: str) -> bool:
    """Whether the text of a link with this name stays in the folder, without resolving other links."""
    depth = len(PurePosixPath(name).parts) - 1
    is_inside = bool(text) and not text.startswith("/")
    for part in PurePosixPath(text).parts:
        depth += -1 if part == ".." else 1
        is_inside &= depth >= 0
    return is_inside


def _unpack_one(archive: zipfile.ZipFile, member: zipfile.ZipInfo, to: Path, left: int) -> int:
    """Writes one file. Returns how many bytes may still be written: the sizes that an archive declares can be wrong."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, to.open("xb") as target:
        while chunk := source.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                raise _too_large()
            target.write(chunk)
    to.chmod(0o755 if (member.external_attr >> 16) & stat.S_IXUSR else 0o644)
    return left


def _too_large() -> BadArchive:
    size = f"{LARGEST // 1024**2} MB"
    return BadArchive(
        f"the code of a function is larger than {size}; list in .stepwellignore the files that are not needed"
    )
