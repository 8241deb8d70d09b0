"""Turns the jobs that clients push into events. Pure.

The fields of a job: https://github.com/contribsys/faktory/wiki/The-Job-Payload
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stepwell.core.events.engine_ids import EngineId
from stepwell.core.events.envelope import InvalidEnvelope, new_event
from stepwell.core.events.events import Event
from stepwell.core.json_input import large_integers
from stepwell.local.faktory.commands import BadCommand, Push

MAX_JOBS = 1000  # in one PUSHB
EVENT_PREFIX = "faktory/"
_LONGEST_ID = 256
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ENTERPRISE = {
    "unique_for": "use `idempotency` of the function",
    "unique_until": "use `idempotency` of the function",
    "expires_in": "the steps of a function can check the age of `event.ts`",
    "bid": "a function with several steps does the same as a batch",
}
_SEVENTH_DIGIT = re.compile(r"(\.\d{6})\d+")  # Go writes nanoseconds


class BadJob(Exception):
    """The job cannot become an event. The message is for the client."""


@dataclass(frozen=True, slots=True)
class PushedJobs:
    """The jobs of one command. `events`: of jobs to start now. `later`: of scheduled jobs, with their times in ms since
    the epoch. `refused`: messages for the client, by `jid`."""

    events: Sequence[Event]
    later: Sequence[tuple[int, Event]]
    refused: Mapping[str, str]


def read_jobs(push: Push, now: int) -> PushedJobs:
    """Reads the jobs of a command. `now`: ms since the epoch. Raises BadCommand if none of them is accepted."""
    if len(push.jobs) > MAX_JOBS:
        raise BadCommand(f"PUSHB has {len(push.jobs):,} jobs, more than {MAX_JOBS:,}; send several commands")
    if large_integers(push.text):
        raise BadCommand("a number in the job does not fit into 64 bits; send it as a text in quotes")
    events: dict[str, Event] = {}
    later: dict[str, tuple[int, Event]] = {}
    refused = {}
    for index, job in enumerate(push.jobs):
        try:
            event, due = event_of(job, now)
        except BadJob as reason:
            if not push.is_bulk:
                raise BadCommand(str(reason)) from None
            refused[_name_of(job, index)] = str(reason)
            continue
        if due > now:
            later.setdefault(event.id, (due, event))
        else:
            events.setdefault(event.id, event)
    return PushedJobs(list(events.values()), list(later.values()), refused)


def _name_of(job: Any, index: int) -> str:
    """The id under which a refused job is reported."""
    jid = job.get("jid") if isinstance(job, dict) else None
    return jid if isinstance(jid, str) and jid else f"job {index + 1}"


def event_of(job: Any, now: int) -> tuple[Event, int]:
    """The event of a job, and the time (ms since the epoch) at which it is to be accepted. Raises BadJob.

    The job is the data of the event, and two jobs with one `jid` are one event."""
    if not isinstance(job, dict):
        raise BadJob("a job must be a JSON object")
    if problem := next(_problems(job), None):
        raise BadJob(problem)
    data = {"queue": "default", **{name: value for name, value in job.items() if value is not None}}
    fields = {"name": EVENT_PREFIX + job["jobtype"], "data": data, "id": event_id(job["jid"])}
    at = max(now, _due_at(job) or 0)
    try:
        return new_event(fields, at, str, (EngineId.FAKTORY,), accepted_before=False), at
    except InvalidEnvelope as wrong:
        pointer, message = wrong.problems[0]
        raise BadJob(message if pointer != "/name" else f"jobtype {job['jobtype'][:50]!r}: {message}") from None


def event_id(jid: str) -> str:
    """The id of a job's event. It differs from the ids of other senders."""
    plain = f"{EngineId.FAKTORY}{jid}"
    if len(plain) <= _LONGEST_ID and not _CONTROL.search(plain):
        return plain
    return f"{EngineId.FAKTORY}sha256:{hashlib.sha256(jid.encode(errors='surrogatepass')).hexdigest()}"


def _due_at(job: dict[str, Any]) -> int | None:
    """The time (ms since the epoch) for which a job is scheduled; None if it has no `at`. Raises ValueError."""
    at = job.get("at")
    if at is None or at == "":
        return None
    if not isinstance(at, str) or len(at) > 64:
        raise ValueError
    moment = datetime.fromisoformat(_SEVENTH_DIGIT.sub(r"\1", at))
    if moment.tzinfo is None:
        raise ValueError
    return round(moment.astimezone(UTC).timestamp() * 1000)


def _problems(job: dict[str, Any]) -> Iterator[str]:
    for name in ("jid", "jobtype"):
        if not isinstance(job.get(name), str) or not job[name]:
            yield f"a job needs `{name}`, a text"
    if not isinstance(job.get("args"), list):
        yield "a job needs `args`, an array"
    if not isinstance(job.get("queue", "default"), str | None):
        yield "`queue` of a job must be a text"
    custom = job.get("custom")
    if custom is not None and not isinstance(custom, dict):
        yield "`custom` of a job must be a JSON object"
    for name in custom or ():
        if name in _ENTERPRISE:
            yield f"`{name}` is a feature of Faktory Enterprise, and does not exist here; {_ENTERPRISE[name]}"
    try:
        _due_at(job)
    except (ValueError, OverflowError):
        yield "`at` of a job must be a time such as 2027-01-31T15:30:00Z"
