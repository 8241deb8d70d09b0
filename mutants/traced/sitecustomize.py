"""Python imports this module at its start. It records which functions are entered in processes that tests start."""

from __future__ import annotations

import os
import sys
import threading
from types import CodeType, FrameType

# By id, because a code object's hash covers all its content. The objects are kept, so that no id is used again.
_SEEN: dict[int, CodeType] = {}


def note_functions(prefix: str, path: str) -> None:
    """Appends a line to a file when a function under `prefix` is first entered: file and qualified name."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if id(code) not in _SEEN:
            _SEEN[id(code)] = code
            if code.co_filename.startswith(prefix):
                os.write(file, f"{code.co_filename[len(prefix) :]}\t{code.co_qualname}\n".encode())

    threading.settrace(note)
    sys.settrace(note)


if _to := os.environ.get("STEPWELL_FUNCTIONS_TO"):
    note_functions(os.environ["STEPWELL_FUNCTIONS_OF"], _to)
