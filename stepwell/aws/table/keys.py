"""The one DynamoDB table: every key and every condition.

| access pattern | request |
|---|---|
| accept an event once | Put `E#id`, condition `NEW` |
| store an event under its wait keys | Put `K#key` |
| start a run | Put `R#id`, condition `NEW` |
| one run for a value of `idempotency` | Put `I#function#value`, condition `FREE` |
| why an event did not start another | Get `E#id`; Put it, condition `SAME` |
| one transition of a run | Put `R#id`, condition `UNCHANGED` |
| a run with its results | Get `R#id`; what overflowed: Query `R#id`, `a#` |
| outcomes of a wide run that may not be folded yet | Query `R#id`, from `o#` and a revision on |
| open an approval; approvals that are open | Put `R#id`, `q#`; Query the index `status` |
| open a wait; find waits for an event | Put, Query `W#key`; by the name alone Query each of its shards |
| events that came before a wait | Query `K#key` between two positions; Get the events |
| timers due in the next minutes; where the last minute stopped | Query `T#shard` between two; Get, Put `META` |
| timers that are late | Query `T#shard` up to a time |
| cron triggers, canaries to look at | Query `C` |
| events kept for a paused function | Put, Query `P#function` |
| live functions; a version | Query `F`; Get `V#function` |
| what starts live functions | Query `META`, `starts#` |
| has a function changed | Get `META` |
| a key | Get `KEY` |
| the types of events; the schema of one | Get `META`; Get `Y#name` |
| the rule of a webhook; all | Get `H`; Query `H` |
| lists | Query `L#dimension#month#shard`; by status: Query the index `status` |
| a person by an id | Get `U#kind#id`; if another id leads, Get that |
| what an event tells of a person | Put `U#kind#id` of it and of each new id, condition `NEW` or `UNCHANGED` |
| persons, newest first | Query the index `status` |
| young open runs, for the sweeper; where it goes on | Query the index `status`; Get, Put `META` |
| let the sweeper look at an older run; those to look at | Put, Query `D#shard` |

One rule: nothing is scanned, and no request is a transaction.
"""

from __future__ import annotations

import hashlib
from typing import Any

from stepwell.core.run.messages import Timer

Item = dict[str, Any]
Key = dict[str, Any]

NEW = "attribute_not_exists(pk)"
EXISTS = "attribute_exists(pk)"
UNCHANGED = "v = :before"  # nobody changed the run, or person, since it was read
LEADS = "attribute_exists(l) AND attribute_not_exists(b)"  # an id leads to another's person, and has none of its own
FREE = f"{NEW} OR u <= :at"  # nobody has it, or whoever had it has it no more: expiry is by time, not by deletion
OF_RUN = "r = :run"  # a value of `idempotency` that this run has claimed
NOT_NEWER = f"{NEW} OR rev <= :rev"  # what is written says as much of a function's routing as what is there, or more
SAME_ROUTING = "attribute_not_exists(rev) OR rev = :rev"  # nobody changed the function's routing meanwhile
SAME = "b = :body AND ms = :kept"  # an event, and what is kept of its misses, are as they were read
SAME_WITHOUT = "b = :body AND attribute_not_exists(ms)"
STATUS_INDEX = "status"
OUTCOMES = "o#"  # with which the names of a wide run's unfolded outcomes begin
STATUS_SHARDS = 8  # also of what the sweeper looks at
NAME_SHARDS = 16  # of the events of one name, for waits that have no key
WAIT_SHARDS = 8  # of those waits; every event of the name asks each
TIMER_SHARDS = 8  # a partition key takes 1,000 writes a second: ADR 6
_LONGEST_SORT_KEY = 1024  # bytes; of a partition key 2,048, which no name or id of 256 characters fills


def _key(pk: str, sk: str) -> Key:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def event_key(event_id: str) -> Key:
    return _key(f"E#{event_id}", "e")


def rerun_key(event_id: str, position: int) -> Key:
    return _key(f"E#{event_id}", f"r#{position:020}")


def once_key(function_id: str, value: bytes) -> Key:
    return _key(f"I#{function_id}#{value.hex()}", "i")


def run_key(run_id: str) -> Key:
    return _key(f"R#{run_id}", "r")


def overflow_key(run_id: str, step: int, attempt: int, content: bytes) -> Key:
    """Named by its content: of two outcomes of one attempt, the run refers to the one that it took."""
    return _key(f"R#{run_id}", f"a#{step}#{attempt}#{hashlib.sha256(content).hexdigest()[:8]}")


def page_key(run_id: str, number: int, content: bytes) -> Key:
    """A page of a run's history."""
    return _key(f"R#{run_id}", f"h#{number:04}#{hashlib.sha256(content).hexdigest()[:8]}")


def item_key(run_id: str, name: str) -> Key:
    """Another item of a run, by the name that the run refers to it with."""
    return _key(f"R#{run_id}", name)


def approval_key(run_id: str, step: int, attempt: int) -> Key:
    """As long as an approval is open, so that the index lists it."""
    return _key(f"R#{run_id}", f"q#{step}#{attempt}")


def approvals_partition(shard: int) -> str:
    """Of the index: approvals that are open, by the positions of their runs."""
    return f"S#approvals#{shard}"


def outcomes_from(revision: int) -> str:
    """Where the names of the outcomes begin that were written down by whoever saw this revision of the run, or a later
    one. Those of earlier versions of Stepwell begin with the time, which is behind every revision."""
    return f"{OUTCOMES}{max(0, revision):010}#"


def outcomes_key(run_id: str, revision: int, now: int, content: bytes) -> Key:
    """Those of one batch, which saw this revision of the run."""
    return _key(f"R#{run_id}", f"{outcomes_from(revision)}{now:015}#{hashlib.sha256(content).hexdigest()[:8]}")


def wait_partitions(name: str, key: bytes | None) -> list[str]:
    """Where waits are found by their key, or by their name alone."""
    if key is not None:
        return [f"W#{key.hex()}"]
    return [f"W#n#{name}", *(f"W#s{shard}#{name}" for shard in range(1, WAIT_SHARDS))]


def wait_key(name: str, key: bytes | None, run_id: str, pause: int, shards: int) -> Key:
    """`shards`: among how many waits by name alone are divided, at most `WAIT_SHARDS`."""
    partitions = wait_partitions(name, key)
    shard = shard_of(run_id, min(shards, len(partitions)))
    return _key(partitions[shard], f"{run_id}#{pause}")


def arrival_partitions(name: str, key: bytes | None) -> list[str]:
    """Where events are found by a wait's key, or by their name alone."""
    return [f"K#n#{name}#{shard}" for shard in range(NAME_SHARDS)] if key is None else [f"K#{key.hex()}"]


def arrival(partition: str, position: int, event_id: str) -> Item:
    """An event under a wait's key, in order of acceptance. An id that is too long for a sort key stands beside it."""
    sort_key = f"{position:020}#{event_id}"
    if len(sort_key.encode()) <= _LONGEST_SORT_KEY:
        return _key(partition, sort_key)
    digest = hashlib.sha256(event_id.encode()).hexdigest()
    return {**_key(partition, f"{position:020}#{digest}"), "i": {"S": event_id}}


def arrived(item: Item) -> tuple[int, str]:
    """The position and the id of an event that stands under a wait's key."""
    position, _, event_id = item["sk"]["S"].partition("#")
    return int(position), item["i"]["S"] if "i" in item else event_id


def person_key(kind: int, text: str) -> Key:
    """Of the id that a person is known by: the person; of each other id: which id leads to it."""
    return _key(f"U#{kind}#{text}", "u")


def people_partition(shard: int) -> str:
    """Of the index: persons, by since when they are known."""
    return f"S#people#{shard}"


def timer_partition(shard: int) -> str:
    return f"T#{shard}"


def timer_key(run_id: str, timer: Timer, due_at: int, shard: int | None = None) -> Key:
    name = f"{timer.kind.value}.{timer.index}.{timer.attempt}"
    shard = shard_of(run_id, TIMER_SHARDS) if shard is None else shard
    return _key(timer_partition(shard), f"{due_at:015}#{run_id}#{name}")


def watch_partition(shard: int) -> str:
    return f"D#{shard}"


def watch_key(run_id: str, at: int) -> Key:
    """Lets the sweeper look at a run at a time."""
    return _key(watch_partition(shard_of(run_id, STATUS_SHARDS)), f"{at:015}#{run_id}")


def schedule_key(function_id: str, cron: str, timezone: str) -> Key:
    return _key("C", f"{function_id}#{cron}#{timezone}")


def guard_key(function_id: str) -> Key:
    """When a guarded canary is looked at: among the cron triggers, whose names have one # more."""
    return _key("C", f"{function_id}#guard")


def kept_partition(function_id: str) -> str:
    return f"P#{function_id}"


def function_key(function_id: str) -> Key:
    return _key("F", function_id)


STARTS = "starts#"


def starts_key(function_id: str) -> Key:
    """What starts a function, beside the item that says all of it."""
    return _key(META, f"{STARTS}{function_id}")


def version_key(function_id: str, version: int) -> Key:
    return _key(f"V#{function_id}", f"{version:08}")


def schema_key(name: str, digest: str) -> Key:
    """The schema of a type of events, named by its content."""
    return _key(f"Y#{name}", digest)


WEBHOOKS = "H"


def webhook_key(name: str) -> Key:
    return _key(WEBHOOKS, name)


META = "META"
FUNCTIONS_STATE = _key(META, "functions")
TYPES_STATE = _key("META", "types")
SECRET = _key("META", "secret")


TIMERS_STATE = _key("META", "timers")
"""Holds in k the sort key of the last far timer that was sent."""


def sweep_key(shard: int) -> Key:
    """How far the sweeper has come in a shard."""
    return _key("META", f"swept#{shard}")


def shard_of(text: str, shards: int) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) % shards


def status_partition(status: str, shard: int, month: str | None = None) -> str:
    """Of the index: runs that are `running`, or failed while attempts still run (`ending`), or that `failed` or were
    `cancelled` in a month (`2026-11`)."""
    return f"S#{status}#{shard}" if month is None else f"S#{status}#{month}#{shard}"


def create_table(dynamodb: Any, name: str) -> None:
    """Make the table as infra does, for tests."""
    text = {"AttributeType": "S"}
    dynamodb.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            {"AttributeName": "pk", **text},
            {"AttributeName": "sk", **text},
            {"AttributeName": "gk", **text},
            {"AttributeName": "gs", "AttributeType": "N"},
        ],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        GlobalSecondaryIndexes=[
            {
                "IndexName": STATUS_INDEX,
                "KeySchema": [{"AttributeName": "gk", "KeyType": "HASH"}, {"AttributeName": "gs", "KeyType": "RANGE"}],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            }
        ],
    )
