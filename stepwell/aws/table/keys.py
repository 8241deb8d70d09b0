"""All keys and conditions of the DynamoDB table. No access pattern scans the table or uses a transaction.

| access pattern | request |
|---|---|
| accept an event once | Put `E#id`, condition `NEW` |
| store an event under a wait key | Put `K#key` |
| start a run | Put `R#id`, condition `NEW` |
| one run for a value of `idempotency` | Put `I#function#value`, condition `FREE` |
| count a start for `rate_limit` | Get `N#function#key`; Put it, condition `UNCHANGED`; every 20th: Put, Get `c#` |
| claim a key of `singleton` | Get `G#function#key`; Get `R#id` of the holder; Put `G#`, condition `HELD_BY` or `NEW` |
| store why an event did not start a function | Get `E#id`; Put it, condition `SAME` |
| one transition of a run | Put `R#id`, condition `UNCHANGED` |
| a run with all results | Get `R#id`; long results: Query `R#id`, `a#` |
| a permit of a limit; give it back | Update `B#limit`, `h#shard`, if there is room or the start has one |
| wait for a limit; who holds and who waits | Put `B#limit`, `w#`; Query `B#limit` |
| the limits that starts wait for; the last change that was looked at | Put, Query `BW`; Get, Put `META` |
| outcomes of a wide run that may not be folded yet | Query `R#id`, from `o#` and a revision on |
| open an approval; list open approvals | Put `R#id`, `q#`; Query the index `status` |
| open a wait; find the waits for an event | Put, Query `W#key`; waits without a key: Query each shard of the name |
| events that came before a wait | Query `K#key` between two positions; Get the events |
| timers due in the next minutes; the cursor of the last tick | Query `T#shard` between two times; Get, Put `META` |
| overdue timers | Query `T#shard` up to a time |
| cron triggers, canaries to check | Query `C` |
| events kept for a paused function | Put, Query `P#function` |
| the paused functions that keep an event | Get `P#function` of each function that it starts |
| live functions; a version | Query `F`; Get `V#function` |
| triggers of live functions | Query `META`, `starts#` |
| has a function changed | Get `META` |
| an API key | Get `KEY` |
| all event types; the schema of one | Get `META`; Get `Y#name` |
| a webhook; all webhooks | Get `H`; Query `H` |
| lists | Query `L#dimension#month#shard`; by status: Query the index `status` |
| a person by an id | Get `U#kind#id`; if it points to another id, Get that one |
| store what an event contains about a person | Put `U#kind#id` of each new id, condition `NEW` or `UNCHANGED` |
| persons, newest first | Query the index `status` |
| young open runs, for the sweeper; the sweeper's cursor | Query the index `status`; Get, Put `META` |
| schedule a check of an older run; runs to check | Put, Query `D#shard` |
"""

from __future__ import annotations

import hashlib
from typing import Any

from stepwell.core.run.messages import Timer

Item = dict[str, Any]
Key = dict[str, Any]

NEW = "attribute_not_exists(pk)"
EXISTS = "attribute_exists(pk)"
UNCHANGED = "v = :before"  # the run or person has not changed since it was read
LEADS = "attribute_exists(l) AND attribute_not_exists(b)"  # the id only points to another id
FREE = f"{NEW} OR u <= :at"  # unclaimed, or the claim has expired; DynamoDB may delete expired items much later
OF_RUN = "r = :run"  # the value of `idempotency` is claimed by this run
HELD_BY = "r = :run AND #at = :at"  # the key of `singleton` still belongs to the claim that was read
NOT_NEWER = f"{NEW} OR rev <= :rev"  # the stored routing is not newer than the one that is written
SAME_ROUTING = "attribute_not_exists(rev) OR rev = :rev"  # the function's routing has not changed since it was read
SAME = "b = :body AND ms = :stored"  # the event and the stored reasons have not changed since they were read
SAME_WITHOUT = "b = :body AND attribute_not_exists(ms)"  # the same, for an event without stored reasons
STATUS_INDEX = "status"
START_CHUNKS = "c#"  # prefix of the sort keys of older starts that count for `rate_limit`
OUTCOMES = "o#"  # prefix of the sort keys of a wide run's stored outcomes
STATUS_SHARDS = 8  # of each status in the index, and of the runs that the sweeper must check
NAME_SHARDS = 16  # of the events of one name, for waits without a key
WAIT_SHARDS = 8  # of the waits without a key; each event of the name queries all of them
TIMER_SHARDS = 8  # a partition key takes 1,000 writes a second: ADR 6
_LONGEST_SORT_KEY = 1024  # bytes; a partition key may have 2,048, which names and ids of 256 characters never fill


def _key(pk: str, sk: str) -> Key:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def event_key(event_id: str) -> Key:
    return _key(f"E#{event_id}", "e")


def rerun_key(event_id: str, position: int) -> Key:
    return _key(f"E#{event_id}", f"r#{position:020}")


def idempotency_key(function_id: str, value: bytes) -> Key:
    return _key(f"I#{function_id}#{value.hex()}", "i")


def singleton_key(function_id: str, key: bytes) -> Key:
    return _key(f"G#{function_id}#{key.hex()}", "g")


def rate_limit_partition(function_id: str, key: bytes) -> str:
    """The partition of the starts that count for one key of a function's `rate_limit`."""
    return f"N#{function_id}#{key.hex()}"


def rate_limit_key(function_id: str, key: bytes) -> Key:
    """The newest starts. Older ones are in the items of `start_chunk_key`, which sort before it."""
    return _key(rate_limit_partition(function_id, key), "s")


def start_chunk_key(function_id: str, key: bytes, number: int) -> Key:
    return _key(rate_limit_partition(function_id, key), f"{START_CHUNKS}{number:012}")


def run_key(run_id: str) -> Key:
    return _key(f"R#{run_id}", "r")


def overflow_key(run_id: str, step: int, attempt: int, content: bytes) -> Key:
    """A long result. The key contains a hash of the content, so two outcomes of one attempt are two items; the run
    refers to the outcome that it accepted."""
    return _key(f"R#{run_id}", f"a#{step}#{attempt}#{hashlib.sha256(content).hexdigest()[:8]}")


def page_key(run_id: str, number: int, content: bytes) -> Key:
    """A page of a run's history."""
    return _key(f"R#{run_id}", f"h#{number:04}#{hashlib.sha256(content).hexdigest()[:8]}")


def item_key(run_id: str, name: str) -> Key:
    """Another item of a run, by the sort key that the run's item stores."""
    return _key(f"R#{run_id}", name)


def approval_key(run_id: str, step: int, attempt: int) -> Key:
    """An open approval. The item exists while the approval is open, so that the index lists it."""
    return _key(f"R#{run_id}", f"q#{step}#{attempt}")


def approvals_partition(shard: int) -> str:
    """A partition of the index: open approvals, ordered by the positions of their runs."""
    return f"S#approvals#{shard}"


def outcomes_from(revision: int) -> str:
    """The first sort key of outcomes that were stored at this revision of the run or later.

    Earlier versions of Stepwell began these sort keys with the time, which sorts after every revision.
    """
    return f"{OUTCOMES}{max(0, revision):010}#"


def outcomes_key(run_id: str, revision: int, now: int, content: bytes) -> Key:
    """The outcomes that one batch stores after it read this revision of the run."""
    return _key(f"R#{run_id}", f"{outcomes_from(revision)}{now:015}#{hashlib.sha256(content).hexdigest()[:8]}")


def wait_partitions(name: str, key: bytes | None) -> list[str]:
    """The partitions of the waits with this key or, if it is None, of the waits for this event name without a key."""
    if key is not None:
        return [f"W#{key.hex()}"]
    return [f"W#n#{name}", *(f"W#s{shard}#{name}" for shard in range(1, WAIT_SHARDS))]


def wait_key(name: str, key: bytes | None, run_id: str, pause: int, shards: int) -> Key:
    """The item of a wait. `shards`: how many shards hold the waits without a key, at most `WAIT_SHARDS`."""
    partitions = wait_partitions(name, key)
    shard = shard_of(run_id, min(shards, len(partitions)))
    return _key(partitions[shard], f"{run_id}#{pause}")


def event_entry_partitions(name: str, key: bytes | None) -> list[str]:
    """The partitions in which a wait finds earlier events: those of the wait's key or, without one, of the name."""
    return [f"K#n#{name}#{shard}" for shard in range(NAME_SHARDS)] if key is None else [f"K#{key.hex()}"]


def event_entry(partition: str, position: int, event_id: str) -> Item:
    """An entry that refers to an event, ordered by acceptance. An id too long for a sort key is an attribute."""
    sort_key = f"{position:020}#{event_id}"
    if len(sort_key.encode()) <= _LONGEST_SORT_KEY:
        return _key(partition, sort_key)
    digest = hashlib.sha256(event_id.encode()).hexdigest()
    return {**_key(partition, f"{position:020}#{digest}"), "i": {"S": event_id}}


def read_event_entry(item: Item) -> tuple[int, str]:
    """The position and the id of the event to which an entry refers."""
    position, _, event_id = item["sk"]["S"].partition("#")
    return int(position), item["i"]["S"] if "i" in item else event_id


def person_key(kind: int, text: str) -> Key:
    """An id of a person. The item of the smallest id holds the person; the items of the other ids point to it."""
    return _key(f"U#{kind}#{text}", "u")


def people_partition(shard: int) -> str:
    """A partition of the index: persons, ordered by when they first occurred in an event."""
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
    """An item that makes the sweeper check a run at a time (ms)."""
    return _key(watch_partition(shard_of(run_id, STATUS_SHARDS)), f"{at:015}#{run_id}")


def schedule_key(function_id: str, cron: str, timezone: str) -> Key:
    return _key("C", f"{function_id}#{cron}#{timezone}")


def guard_key(function_id: str) -> Key:
    """When a guarded canary is checked next. It is stored beside cron triggers, whose sort keys have one `#` more."""
    return _key("C", f"{function_id}#guard")


def paused_events_partition(function_id: str) -> str:
    return f"P#{function_id}"


def function_key(function_id: str) -> Key:
    return _key("F", function_id)


STARTS = "starts#"


def starts_key(function_id: str) -> Key:
    """The triggers of a function, stored apart from the function's complete item."""
    return _key(META, f"{STARTS}{function_id}")


def version_key(function_id: str, version: int) -> Key:
    return _key(f"V#{function_id}", f"{version:08}")


def schema_key(name: str, digest: str) -> Key:
    """A schema of an event type, identified by a digest of the content."""
    return _key(f"Y#{name}", digest)


WEBHOOKS = "H"


def webhook_key(name: str) -> Key:
    return _key(WEBHOOKS, name)


META = "META"
FUNCTIONS_STATE = _key(META, "functions")
TYPES_STATE = _key("META", "types")
SECRET = _key("META", "secret")


TIMERS_STATE = _key("META", "timers")
"""The cursor of `tick`: attribute `k` is the sort key of the last far timer that was sent."""


def sweep_key(shard: int) -> Key:
    """The sweeper's cursor in a shard."""
    return _key("META", f"swept#{shard}")


def shard_of(text: str, shards: int) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) % shards


def status_partition(status: str, shard: int, month: str | None = None) -> str:
    """A partition of the index: runs of a status, for some statuses of a month (`2026-11`).

    `running`: open runs. `ending`: failed runs that still have running attempts. `failed`, `cancelled`: by month.
    """
    return f"S#{status}#{shard}" if month is None else f"S#{status}#{month}#{shard}"


def create_table(dynamodb: Any, name: str) -> None:
    """Creates the table in the same shape as `infra`, for tests."""
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
