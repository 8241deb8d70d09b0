"""Turns the end of a WebAssembly module into an `Outcome`. Two texts describe the end: a kind, and what belongs to it.

The kinds are: x, the exit code and the bytes of memory; t, the bytes of memory and a trap; f, the fuel is used up; s,
why the module cannot be started.
"""

from __future__ import annotations

from stepwell.core.run.messages import Outcome
from stepwell.core.run.outcome import ParsedOutput, failure, from_exit

DEFAULT_MEMORY = 256  # MB
_MB = 1024 * 1024
_NEARLY_ALL = 0.75  # of the memory: a failure may be a lack of memory


def from_module(kind: str, text: str, report: ParsedOutput, last_line: str, now: int, memory: int | None) -> Outcome:
    """The outcome of a module. `last_line`: the last line of stderr. `memory`: the limit in MB."""
    first, _, rest = text.partition(" ")
    if kind == "x" and first.isdecimal() and rest.isdecimal():
        hint = _hint(int(rest), memory) if int(first) else ""
        return from_exit(int(first), report, f"{last_line}{hint}".strip(), now)
    if kind == "t" and first.isdecimal():
        return failure("crash", f"the module trapped: {rest}{_hint(int(first), memory)}")
    if kind == "f":
        return failure("crash", "the module used all of its fuel; raise `fuel` in the runtime", retryable=False)
    if kind == "s":
        return failure("start", text, retryable=False)
    return failure("crash", "the answer of the module's process is not valid")


def _hint(used: int, memory: int | None) -> str:
    """What to do, if the module may have had too little memory."""
    most = memory or DEFAULT_MEMORY
    if used < _NEARLY_ALL * most * _MB:
        return ""
    return f" (it used {used // _MB} MB of at most {most} MB; raise `memory` in the runtime)"
