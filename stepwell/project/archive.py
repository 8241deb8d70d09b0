"""A function as one file, to be sent to a server: its definition, its steps' code, and what stands beside them.

One rule: what is in an archive is regular files inside of one folder. Whoever made it, nothing of it is written
anywhere else, it is no larger than code may be, and no link is followed, since there is none.
"""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from stepwell.project.code import LARGEST, CodeError
from stepwell.project.load import LoadedFunction

MOST_FILES = 20_000
_CHUNK = 1024 * 1024
_BESIDE = (".stepwellignore",)
_SCHEMAS = "*.schema.json"


class BadArchive(Exception):
    """This is no archive of a function, or one that is not taken; the message says why."""


def write_archive(function: LoadedFunction, to: IO[bytes]) -> None:
    """Raises CodeError for code that holds links, OSError."""
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, mode in sorted(_files(function)):
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFREG | mode) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            with (function.folder / name).open("rb") as source, archive.open(info, "w", force_zip64=True) as target:
                while chunk := source.read(_CHUNK):
                    target.write(chunk)


def _files(function: LoadedFunction) -> set[tuple[str, int]]:
    """Names relative to the function's folder, and modes."""
    folder = function.folder.resolve()
    found = {(function.file.name, 0o644)}
    found |= {(name, 0o644) for name in _BESIDE if (folder / name).is_file()}
    found |= {(path.relative_to(folder).as_posix(), 0o644) for path in _schemas(folder)}
    for code in function.steps.values():
        place = code.folder.resolve().relative_to(folder)
        if (code.folder / ".env").is_file():
            found.add(((place / ".env").as_posix(), 0o644))
        for file in code.files:
            name = (place / file.path).as_posix()
            if file.kind == "l":
                raise CodeError(f"{name} is a link, which is not pushed to a server; put the file itself there")
            found.add((name, 0o755 if file.kind == "x" else 0o644))
    return found


def _schemas(folder: Path) -> Iterator[Path]:
    """Types of events that stand beside a function, or are named by its triggers."""
    yield from (path for path in folder.glob(_SCHEMAS) if path.is_file())
    yield from (path for path in (folder / "schemas").rglob(_SCHEMAS) if path.is_file())


def unpack(file: IO[bytes], into: Path) -> None:
    """Write the files of an archive into an empty folder. Raises BadArchive, OSError (disk full)."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            _check(members)
            left = LARGEST
            for member in members:
                left = _unpack_one(archive, member, into / member.filename, left)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        raise BadArchive(f"the archive cannot be read: {error}") from None
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise BadArchive("the archive has a file and a folder of one name") from None
    except (UnicodeError, ValueError, zipfile.error) as error:
        raise BadArchive(f"the archive cannot be read: {error}") from None


def _check(members: list[zipfile.ZipInfo]) -> None:
    if not members or len(members) > MOST_FILES:
        raise BadArchive(f"an archive of a function has 1 to {MOST_FILES:,} files; this one has {len(members):,}")
    if sum(member.file_size for member in members) > LARGEST:
        raise _too_large()
    seen: set[str] = set()
    for member in members:
        name, kind = member.filename, stat.S_IFMT(member.external_attr >> 16)
        parts = PurePosixPath(name).parts
        if name.startswith("/") or "\\" in name or ".." in parts or not parts or ":" in parts[0]:
            raise BadArchive(f"{name[:100]!r} leads out of the function's folder")
        if kind not in (0, stat.S_IFREG):
            raise BadArchive(f"{name[:100]!r} is no file, but a link or a device")
        if member.flag_bits & 1:
            raise BadArchive(f"{name[:100]!r} is encrypted")
        if (plain := str(PurePosixPath(name))) in seen:
            raise BadArchive(f"{name[:100]!r} is there twice")
        seen.add(plain)


def _unpack_one(archive: zipfile.ZipFile, member: zipfile.ZipInfo, to: Path, left: int) -> int:
    """What may still be written afterwards: the size that an archive says need not be true."""
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
    return BadArchive(f"the code of a function may have {size}; name what is not needed in .stepwellignore")
