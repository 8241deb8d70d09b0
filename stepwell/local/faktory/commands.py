"""The commands of a client, parsed and checked. Pure.

https://github.com/contribsys/faktory/blob/main/docs/protocol-specification.md ("Client Commands")
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stepwell.core.json_input import BadJson, parse_json

_MOST_QUEUES = 100
_LONGEST_NAME = 256
_LINES_OF_BACKTRACE = 1000
_ENTERPRISE = "is a command of Faktory Enterprise, and does not exist here"
_REFUSED = {
    "FLUSH": "FLUSH would delete everything, and is refused; cancel runs with `stepwell cancel`",
    "MUTATE": "MUTATE is refused: retries follow the step's definition; cancel runs with `stepwell cancel`, and start"
    " them again with `stepwell rerun`",
    "BATCH": f"BATCH {_ENTERPRISE}; a function with several steps does the same",
    "TRACK": f"TRACK {_ENTERPRISE}; the runs of an event are at GET /v1/events/ID/runs",
}


class BadCommand(Exception):
    """The command is refused; the message is for the client. `code`: the first word of the reply."""

    def __init__(self, message: str, code: str = "ERR") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Hello:
    """`wid` is None for a client that only sends jobs."""

    version: int
    pwdhash: str = ""
    wid: str | None = None
    hostname: str = ""
    pid: int = 0
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Push:
    """`jobs`: as sent, unchecked. `text`: the JSON text of them. `is_bulk`: PUSHB."""

    jobs: list[Any]
    text: bytes
    is_bulk: bool


@dataclass(frozen=True, slots=True)
class Fetch:
    queues: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ack:
    jid: str


@dataclass(frozen=True, slots=True)
class Fail:
    jid: str
    errtype: str
    message: str
    backtrace: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Beat:
    """`state`: the state that the worker says it is in, or empty. `rss_kb`: its memory, or 0."""

    wid: str
    state: str = ""
    rss_kb: int = 0


@dataclass(frozen=True, slots=True)
class Info:
    pass


@dataclass(frozen=True, slots=True)
class End:
    pass


@dataclass(frozen=True, slots=True)
class Queue:
    """`action`: PAUSE or RESUME. `names` is empty for all queues."""

    action: str
    names: tuple[str, ...]


Command = Hello | Push | Fetch | Ack | Fail | Beat | Info | End | Queue


def parse_command(line: bytes) -> Command:
    """The command in a line. Raises BadCommand."""
    verb, _, rest = line.partition(b" ")
    parse = _PARSERS.get(verb)
    if parse is not None:
        return parse(rest.strip())
    name = verb[:40].decode("ascii", "replace").upper()
    if name in _REFUSED:
        raise BadCommand(_REFUSED[name])
    known = ", ".join(word.decode() for word in _PARSERS)
    raise BadCommand(f"unknown command {name!r}; the commands are {known}")


# --- parsers ---------------------------------------------------------------------------------------------------------


def _hello(rest: bytes) -> Hello:
    fields = _fields("HELLO", rest)
    version = fields.get("v")
    if type(version) is not int:
        raise BadCommand('HELLO needs the version of the protocol, as in HELLO {"v":2}', "MALFORMED")
    labels = fields.get("labels")
    return Hello(
        version,
        _text(fields, "pwdhash"),
        _text(fields, "wid") or None,
        _text(fields, "hostname"),
        _whole(fields, "pid"),
        tuple(str(label)[:_LONGEST_NAME] for label in labels[:20]) if isinstance(labels, list) else (),
    )


def _push(rest: bytes) -> Push:
    job = _json("PUSH", rest)
    if not isinstance(job, dict):
        raise BadCommand("PUSH needs a job, which is a JSON object", "MALFORMED")
    return Push([job], rest, is_bulk=False)


def _push_bulk(rest: bytes) -> Push:
    jobs = _json("PUSHB", rest)
    if not isinstance(jobs, list):
        raise BadCommand("PUSHB needs a JSON array of jobs", "MALFORMED")
    return Push(jobs, rest, is_bulk=True)


def _fetch(rest: bytes) -> Fetch:
    return Fetch(tuple(_names("FETCH", rest)) or ("default",))


def _ack(rest: bytes) -> Ack:
    return Ack(_jid("ACK", _fields("ACK", rest)))


def _fail(rest: bytes) -> Fail:
    fields = _fields("FAIL", rest)
    lines = fields.get("backtrace")
    backtrace = tuple(map(str, lines[:_LINES_OF_BACKTRACE])) if isinstance(lines, list) else ()
    return Fail(_jid("FAIL", fields), _text(fields, "errtype"), _text(fields, "message"), backtrace)


def _beat(rest: bytes) -> Beat:
    fields = _fields("BEAT", rest)
    wid = _text(fields, "wid")
    if not wid:
        raise BadCommand('BEAT needs the id of the worker, as in BEAT {"wid":"4qpc2443vpvai"}', "MALFORMED")
    return Beat(wid, _text(fields, "current_state"), _whole(fields, "rss_kb"))


def _queue(rest: bytes) -> Queue:
    action, *names = _names("QUEUE", rest) or [""]
    if action == "REMOVE":
        raise BadCommand("QUEUE REMOVE is refused: a queued job is part of a run; cancel runs with `stepwell cancel`")
    if action not in ("PAUSE", "RESUME"):
        raise BadCommand("QUEUE needs PAUSE or RESUME, and the names of queues or *", "MALFORMED")
    if not names:
        raise BadCommand(f"QUEUE {action} needs the names of queues, or *", "MALFORMED")
    return Queue(action, () if "*" in names else tuple(names))


_PARSERS: dict[bytes, Callable[[bytes], Command]] = {
    b"HELLO": _hello,
    b"PUSH": _push,
    b"PUSHB": _push_bulk,
    b"FETCH": _fetch,
    b"ACK": _ack,
    b"FAIL": _fail,
    b"BEAT": _beat,
    b"INFO": lambda rest: Info(),
    b"QUEUE": _queue,
    b"END": lambda rest: End(),
}


def _json(verb: str, text: bytes) -> Any:
    try:
        return parse_json(text)
    except BadJson as reason:
        raise BadCommand(f"{verb} needs JSON: {reason}", "MALFORMED") from None


def _fields(verb: str, text: bytes) -> dict[str, Any]:
    fields = _json(verb, text)
    if not isinstance(fields, dict):
        raise BadCommand(f"{verb} needs a JSON object", "MALFORMED")
    return fields


def _jid(verb: str, fields: dict[str, Any]) -> str:
    jid = _text(fields, "jid")
    if not jid:
        raise BadCommand(f'{verb} needs the id of a job, as in {verb} {{"jid":"..."}}', "MALFORMED")
    return jid


def _names(verb: str, text: bytes) -> list[str]:
    try:
        names = text.decode().split()
    except UnicodeDecodeError:
        raise BadCommand(f"{verb} is not UTF-8", "MALFORMED") from None
    if len(names) > _MOST_QUEUES or any(len(name) > _LONGEST_NAME for name in names):
        raise BadCommand(
            f"{verb} may name {_MOST_QUEUES} queues, each of at most {_LONGEST_NAME} characters", "MALFORMED"
        )
    return names


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadCommand(f"`{name}` must be a text", "MALFORMED")
    return value


def _whole(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name)
    return value if type(value) is int and value >= 0 else 0
