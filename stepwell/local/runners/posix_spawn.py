"""posix_spawn(3) with a working folder and all other descriptors closed, which Python's `os.posix_spawn` cannot do.

Check `is_possible` first. subprocess.Popen does the same everywhere, but takes twice as long: it reports errors through
a pipe, and closes descriptors one by one while the caller waits.
https://man7.org/linux/man-pages/man3/posix_spawn.3.html; addchdir_np is of glibc 2.29, addclosefrom_np of 2.34.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import sys
from collections.abc import Mapping, Sequence

_OBJECT = 512  # bytes, more than any of glibc's objects takes
_SETSIGDEF, _SETSID = 0x04, 0x80  # from glibc's spawn.h
_NEEDED = ("posix_spawn_file_actions_addchdir_np", "posix_spawn_file_actions_addclosefrom_np")  # glibc 2.29 and 2.34
_ENCODING = sys.getfilesystemencoding()
_RESTORED = (signal.SIGPIPE, signal.SIGXFSZ)  # Python ignores them, which programs do not expect


@functools.cache
def is_possible() -> bool:
    return sys.platform == "linux" and all(hasattr(_libc(), name) for name in _NEEDED)


@functools.cache
def _libc() -> ctypes.PyDLL:
    """The C library. Calls keep the interpreter's lock: to reacquire it could take longer than to spawn."""
    return ctypes.PyDLL(None)


@functools.cache
def _attributes() -> ctypes.Array[ctypes.c_char]:
    """Attributes: a new session, and default signals. They live as long as this process."""
    libc, attributes, signals = _libc(), ctypes.create_string_buffer(_OBJECT), ctypes.create_string_buffer(_OBJECT)
    libc.posix_spawnattr_init(attributes)
    libc.sigemptyset(signals)
    for number in _RESTORED:
        libc.sigaddset(signals, number)
    libc.posix_spawnattr_setsigdefault(attributes, signals)
    libc.posix_spawnattr_setflags(attributes, ctypes.c_short(_SETSIGDEF | _SETSID))
    return attributes


def posix_spawn(argv: Sequence[str | bytes], cwd: str | None, env: Mapping[str, str], streams: Sequence[int]) -> int:
    """Starts a program in a new session; returns the process id. Raises OSError.

    `argv[0]` contains a `/`; if relative, it is below `cwd`. `streams` become the descriptors 0, 1 and 2; all of them
    must be above 2."""
    words = _strings(argv)
    variables = _strings([f"{name}={value}" for name, value in env.items()])
    libc, actions, pid = _libc(), ctypes.create_string_buffer(_OBJECT), ctypes.c_int()
    _check(libc.posix_spawn_file_actions_init(actions), None)
    try:
        for number, descriptor in enumerate(streams):
            _check(libc.posix_spawn_file_actions_adddup2(actions, descriptor, number), None)
        _check(libc.posix_spawn_file_actions_addclosefrom_np(actions, len(streams)), None)
        if cwd is not None:
            _check(libc.posix_spawn_file_actions_addchdir_np(actions, os.fsencode(cwd)), cwd)
        error = libc.posix_spawn(ctypes.byref(pid), words[0], actions, _attributes(), words, variables)
        _check(error, os.fsdecode(argv[0]))
    finally:
        libc.posix_spawn_file_actions_destroy(actions)
    return pid.value


def _strings(texts: Sequence[str | bytes]) -> ctypes.Array[ctypes.c_char_p]:
    """A NULL-terminated array for C."""
    found = [text if isinstance(text, bytes) else text.encode(_ENCODING, "surrogateescape") for text in texts]
    if b"\0" in b"".join(found):
        raise ValueError("embedded null byte")
    return (ctypes.c_char_p * (len(found) + 1))(*found, None)


def _check(error: int, file: str | None) -> None:
    if error:
        raise OSError(error, os.strerror(error), file)
