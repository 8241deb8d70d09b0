"""After an erasure, nothing identifies the user, not even a digest."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from stepwell.core.events.users import Person
from stepwell.core.run.messages import Error, Outcome
from stepwell.event_types.registry import Policy, TypeVersion
from stepwell.local.engine.erasure import erase
from stepwell.local.store.users import read_person
from tests.local.scripted import Scripted, scripted, until

WAITS = {
    "a": {},
    "b": {
        "after": [
            {"step": "a", "async": {"event": "paid", "match": "async.data.email == event.data.email", "ttl": "2d"}}
        ]
    },
    "c": {  # found by name: the wait stores the values that its match refers to
        "after": [
            {"step": "a", "async": {"event": "called", "match": "async.data.email > event.data.email", "ttl": "2d"}}
        ]
    },
}
TYPE = TypeVersion("go", "1", {"properties": {"data": {"required": ["absent"]}}, "required": ["data"]}, Policy.WARN)

Row = tuple[str, str, Any]


async def live(it: Scripted, name: str) -> Person:
    """Events and runs of one user, in every state; the ids of events do not identify the user."""
    await it.deploy("once", idempotency="event.data.email", **WAITS)
    await it.deploy("never", on={"event": "go", "expression": "data.nothing.there"})
    await it.deploy("fails", on="fail")
    await it.platform.registration.register_types([TYPE])
    user = {"external_id": f"id-{name}", "email": f"{name}@example.com", "plan": f"plan-{name}"}
    data = {"email": user["email"], "text": f"text-{name}"}
    for event, of in ((("go", 1), data), (("go", 2), data), (("go", 3), {**data, "email": f"other-{name}"})):
        await it.send(event[0], user=user, data=of, id=f"e{event[1]}")
    it.runner.release(Outcome(output=orjson.dumps({"said": name})))
    await until(lambda: it.count("waits") == 4)
    await it.send("paid", user=user, data=data, id="e4")  # ends one wait; the other one stays open
    await it.send("fail", user=user, data=data, id="e5")
    it.runner.release(Outcome(error=Error("exit", f"no {name}"), retryable=False))
    await it.send("stepwell/identify", user={"id": f"browser-{name}"}, data={"previous_id": f"old-{name}"}, id="e6")
    await it.send("stepwell/identify", user={**user, "id": f"browser-{name}"}, data={"traits": {"x": name}}, id="e7")
    person = read_person(it.platform.store.connection, user["email"])
    assert person is not None
    return person


def rows(it: Scripted) -> list[Row]:
    """All rows of the database, without times and random values of the server."""
    execute = it.platform.store.connection.execute
    tables = [name for (name,) in execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found: list[Row] = []
    for table in tables:
        if table == "secrets":
            continue
        columns = [column[1] for column in execute(f"PRAGMA table_info({table})")]
        for row in execute(f"SELECT * FROM {table}"):
            values = zip(columns, row, strict=True)
            found += [(table, column, _without_times(value)) for column, value in values]
    return sorted(found, key=repr)


def _without_times(value: Any) -> Any:
    if isinstance(value, int):
        return "a time" if value > 10**12 else value
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return re.sub(r"\d{13}|\d{4}-\d\d-\d\dT[\d:.]+Z", "a time", value) if isinstance(value, str) else value


@pytest.mark.parametrize("is_erased", [True, False])
def test_after_an_erasure_nothing_identifies_the_user(tmp_path: Path, is_erased: bool) -> None:
    """Two people have the same history; after the erasure, the same is left of both. So no text or digest of theirs is
    left. Their names are equally long, and too long to occur in an id or a digest by coincidence."""

    async def left(folder: Path, name: str) -> list[Row]:
        folder.mkdir()
        async with scripted(folder, hold=True) as it:
            person = await live(it, name)
            if is_erased:
                assert (await erase(it.platform, person)).is_done
            return rows(it)

    ada, jean = asyncio.run(left(tmp_path / "1", "lovelace")), asyncio.run(left(tmp_path / "2", "rousseau"))
    assert (ada == jean) is is_erased
    if is_erased:
        assert {row[0] for row in ada} >= {"events", "runs", "attempts"}
        for name, folder in (("lovelace", "1"), ("rousseau", "2")):
            files = b"".join(path.read_bytes() for path in (tmp_path / folder).iterdir() if path.is_file())
            assert name.encode() not in files


def test_an_erased_user_may_return_and_duplicates_are_still_recognised(tmp_path: Path) -> None:
    async def test() -> None:
        async with scripted(tmp_path) as it:
            await it.deploy(idempotency="event.data.email")
            user, data = {"external_id": "ada", "plan": "pro"}, {"email": "ada@b.c"}
            await it.send(user=user, data=data, id="1")
            await it.send(user=user, data=data, id="2")
            assert len(it.runs()) == 1
            person = read_person(it.platform.store.connection, "ada")
            assert person is not None
            assert (await erase(it.platform, person)).is_done
            await it.send(user=user, data=data, id="1")
            assert len(it.runs()) == 1
            await it.send(user=user, data=data, id="3")
            assert len(it.runs()) == 2

    asyncio.run(test())


def test_an_erasure_keeps_claims_of_other_users(tmp_path: Path) -> None:
    async def test() -> None:
        async with scripted(tmp_path) as it:
            await it.deploy(idempotency="event.data.order")
            await it.send(user={"external_id": "bob", "plan": "pro"}, data={"order": 1}, id="1")
            await it.send(user={"external_id": "ada", "plan": "pro"}, data={"order": 1}, id="2")
            person = read_person(it.platform.store.connection, "ada")
            assert person is not None
            assert (await erase(it.platform, person)).is_done
            await it.send(user={"external_id": "eve"}, data={"order": 1}, id="3")
            assert len(it.runs()) == 1

    asyncio.run(test())
