"""A scenario in which everything happens to a server once, so that each of its SQL statements is executed."""

from __future__ import annotations

import asyncio
import contextlib
import io
import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from stepwell.api.access import KeyScope
from stepwell.core.definition.definition import parse_definition
from stepwell.core.events.events import Event
from stepwell.core.events.request import parse_events
from stepwell.core.events.users import Person
from stepwell.core.routing.versions import Release, deleted, paused, resumed
from stepwell.core.run.messages import Error, Outcome, Timer, TimerKind
from stepwell.core.run.run import RunStatus
from stepwell.core.sources.records import Record
from stepwell.core.sources.source import Kind, NoEvent
from stepwell.event_types.registry import Policy, TypeVersion
from stepwell.local.approvals import LocalApprovals
from stepwell.local.backup.backup import back_up
from stepwell.local.celery.received import Call
from stepwell.local.code.in_use import needed_versions
from stepwell.local.database.keys import KeyStore
from stepwell.local.engine.erasure import erase
from stepwell.local.engine.retention import clean
from stepwell.local.limit_control import LimitControl
from stepwell.local.sources.celery_calls import CeleryCalls
from stepwell.local.sources.celery_queue import CeleryToken
from stepwell.local.sources.control import SourceControl
from stepwell.local.sources.reader import Polled
from stepwell.local.sources.store import put_in_quarantine
from stepwell.local.sources.supervisor import LocalSources
from stepwell.local.store.faktory_rows import FaktoryRows
from stepwell.local.type_control import TypeControl
from stepwell.local.users import LocalUsers
from stepwell.local.webhooks import LocalWebhooks, WebhookControl
from tests.local.scripted import DONE, Scripted, scripted, until

HOUR, DAY = 3_600_000, 86_400_000
WAIT = {"after": [{"step": "a", "async": {"event": "paid", "match": "async.data.n == event.data.n", "ttl": "2d"}}]}
ANY = {"after": [{"step": "a", "async": {"event": "paid", "match": "async.data.n > 5", "ttl": "2d"}}]}
DELAY = {"after": [{"step": "a", "wait": "3h"}]}
RETRY = {"retries": {"attempts": 1, "backoff": {"initial": "3h", "jitter": 0}}}
APPROVAL = {"runtime": {"type": "approval", "message": "ok?"}, "after": [{"step": "a"}]}
ADA = {"external_id": "ada", "email": "ada@example.com", "plan": "pro"}
LONG = Outcome(output=b'"%b"' % (b"x" * 10_000))
FAILED = Outcome(error=Error("exit", "no"), retryable=True)


async def everything(folder: Path) -> None:
    async with scripted(folder, hold=True, parallelism=100) as it:
        for happens in (_runs, _senders, _lists, _functions, _types, _webhooks, _sources, _accepted, _faktory):
            await happens(it)
        for happens in (_limits, _time, _erasure, _age, _celery):
            await happens(it)
    async with scripted(folder, batch_facts=10) as it:  # restarted with data of an earlier Stepwell
        it.platform.store.connection.execute("UPDATE versions SET head = NULL")
        await _crowd(it)
        await it.platform.runs.cancel_all("limited")
    _files(folder)


async def _call(it: Scripted, work: Callable[[], Any]) -> Any:
    """Calls in a thread a function that uses the event loop."""
    return await asyncio.to_thread(work)


def _asked(it: Scripted) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    loop = asyncio.get_running_loop()
    return lambda work: asyncio.run_coroutine_threadsafe(work, loop).result(10)


def _count(it: Scripted, table: str) -> int:
    """A count by a connection of the test, whose statements are not recorded."""
    with contextlib.closing(sqlite3.connect(it.platform.store.path, factory=sqlite3.Connection)) as connection:
        number: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        return number


async def _end(it: Scripted, outcome: Outcome | None = None) -> None:
    await until(lambda: it.runner.held)
    it.runner.release() if outcome is None else it.runner.release(outcome)
    await asyncio.sleep(0)


async def _accepted(it: Scripted) -> None:
    accepted = it.platform.store.accepted
    accepted.add(("run", 0, 1))
    await it.platform.in_transaction(lambda connection, now: None)
    accepted.keep(set())
    await it.platform.in_transaction(lambda connection, now: None)


async def _faktory(it: Scripted) -> None:
    rows, attempt = FaktoryRows(it.platform.store.connection), ("run", 0, 1)

    def change(connection: sqlite3.Connection, now: int) -> None:
        rows.put_result(attempt, b"1")
        rows.put_later([(now, "faktory:1", b"{}")])
        rows.set_paused(["default"])

    def remove(connection: sqlite3.Connection, now: int) -> None:
        rows.remove_results([attempt])
        rows.remove_later(["faktory:1"])

    await it.platform.in_transaction(change)
    assert (rows.attempts_with_results(), rows.result(attempt), rows.paused()) == ({attempt}, b"1", {"default"})
    assert rows.due(rows.next_due() or 0, 10) == [("faktory:1", b"{}")]
    await it.platform.in_transaction(remove)


async def _runs(it: Scripted) -> None:
    await it.deploy("waits", a=RETRY, b=WAIT, c=ANY, d=DELAY, e=APPROVAL)
    await it.deploy("once", on="once", idempotency="event.data.n")
    few = {"limit": 1, "period": "1h", "key": "event.data.n"}
    await it.deploy("few", on="few", control={"rate_limit": few})
    single = {"mode": "skip", "key": "event.data.n"}
    await it.deploy("one", on="few", idempotency="event.id", control={"rate_limit": few, "singleton": single})
    await it.send(user=ADA, data={"n": 1}, id="e1")
    await until(lambda: it.runner.held)
    it.runner.held[0].log("stderr", b"hello")
    it.runner.held[0].log("stderr", b"x" * 200_000)  # stored in a file
    await _end(it, FAILED)
    await until(lambda: _count(it, "timers") == 1)
    it.platform.clock.advance(4 * HOUR)
    await _end(it, LONG)
    await until(lambda: _count(it, "waits") == 2)
    await it.send("paid", data={"n": 1})
    await _end(it)
    for n in (1, 1, 2):
        await it.send("once", user=ADA, data={"n": n})
    await it.send("once", data={"n": 7}, id="e1")  # a duplicate
    for n in (1, 1, 2):
        await it.send("few", user=ADA, data={"n": n})
    await it.deploy("both", on="few", control={"rate_limit": {**few, "limit": 9}, "singleton": single})
    for _ in range(2):
        await it.send("few", user=ADA, data={"n": 3})  # the second one releases its start
    await it.platform.log_files.remove_orphans()
    (run, *_) = it.runs("e1")
    assert it.queries.read_run(run.run.id) is not None
    approvals = LocalApprovals(it.platform, it.queries, lambda link, outcome: True)
    assert approvals.read_asking(before=None, limit=1).items
    assert approvals.read_asked(run.run.id) is not None
    await it.platform.runs.rerun(run.run.id, "again")
    await it.platform.runs.replay("once", 1, ["e1"], "r1")
    await it.platform.runs.cancel_all("waits")
    await _long_run(it)


async def _long_run(it: Scripted) -> None:
    """A run that is stored in parts until it ends."""
    await it.deploy("long", on="long", **{f"s{n}": {"after": [{"step": f"s{n - 1}"}]} if n else {} for n in range(130)})
    event_id = await it.send("long")
    await until(lambda: _count(it, "run_parts") == 1)
    assert [run.run.steps[0].attempt for run in it.runs(event_id)] == [1]
    await it.platform.runs.cancel_all("long")
    await until(lambda: _count(it, "run_parts") == 0)
    for attempt in [held for held in it.runner.held if held.job.function_id == "long"]:
        it.runner.held.remove(attempt)
        attempt.end(DONE)


async def _limits(it: Scripted) -> None:
    """Runs and attempts that wait for limits, also when the server is restarted."""
    one, many = {"limit": 1, "period": "1d"}, {"limit": 2, "group": "many"}
    limits = {"concurrency": [{"limit": 2, "scope": "run"}, many], "throttle": {**one, "burst": 3}}
    await it.deploy("limited", on="limited", control=limits, a={"throttle": {**one, "key": "event.data.n"}})
    runs = [run for n in (1, 1, 2) for run in it.runs(await it.send("limited", data={"n": n}))]
    await until(lambda: _count(it, "limit_waits") == 2)
    details = [it.queries.read_run(run.run.id) for run in runs]
    assert [len(detail.waiting) for detail in details if detail] == [0, 1, 1]
    values = it.platform.store.limit_values
    for setting in ({"limit": 3}, None):
        await it.platform.batches.do(lambda batch, setting=setting: values.set("limited/concurrency", setting))
    control = LimitControl(it.platform, _asked(it))
    assert [use.limit.id for use in await _call(it, lambda: control.read_limits("limited"))]
    await it.platform.runs.cancel(runs[2].run.id)
    await until(lambda: _count(it, "limit_waits") == 1)


async def _crowd(it: Scripted) -> None:
    """Events that wake more runs than a batch may, found by name and by a key."""
    await _wake_many(it, "by-name", {})
    await _wake_many(it, "by-key", {"match": "async.data.n == event.data.n"})


async def _wake_many(it: Scripted, name: str, match: dict[str, str]) -> None:
    wait = {"event": "wake", "ttl": "1d", **match}
    await it.deploy(name, on=name, a={"after": [{"step": "$trigger", "async": wait}]})
    before = _count(it, "waits")
    await it.platform.send(it.events(60, name, data={"n": 1}))
    await until(lambda: _count(it, "waits") == before + 60)
    await it.send("wake", data={"n": 1})
    await until(lambda: _count(it, "waits") == before)


async def _senders(it: Scripted) -> None:
    """Events whose generated id already exists."""
    await it.platform.send(parse_events(b'{"name": "x"}', it.platform.clock.now(), lambda: "e1"))
    await it.send("stepwell/identify", user={"id": "browser"}, data={"traits": {"x": 1}})
    await it.send("stepwell/identify", user=ADA, data={"previous_id": "browser"})


def _users(it: Scripted) -> LocalUsers:
    asked = _asked(it)
    return LocalUsers(it.platform.store.path, lambda person: asked(erase(it.platform, person)))


async def _lists(it: Scripted) -> None:
    users = _users(it)
    for user in (None, "ada", "somebody"):
        for name in (None, "go"):
            users.read_events(user=user, name=name, since=1, until=2**50, before=100)
        for function in (None, "once"):
            for status in (None, *RunStatus):
                for event, replay in ((None, None), ("e1", None), (None, "r1"), ("e1", "r1")):
                    asked = {"event": event, "replay": replay, "user": user, "function": function, "status": status}
                    users.read_runs(**asked, since=1)
    users.read_run_texts(lambda detail: b"", limit=10)
    users.read_event("e1")
    users.read_tail(0, 10)
    users.functions_holding(1)
    users.is_unrouted("go", 1)
    users.read_functions()
    users.read_samples("once", 10)
    users.read_users(before=None, limit=10)
    person = _found(users)
    users.timeline(person, before=None, limit=100)
    users.timeline(person, before=(2**40, 0, 0, 0, 0), limit=100)
    users.seen(person)
    users.find("nobody")


def _found(users: LocalUsers) -> Person:
    person = users.find("ada")
    assert person is not None
    return person


async def _functions(it: Scripted) -> None:
    platform = it.platform

    async def register(release: Release | None, on: dict[str, str] | None = None, **env: str) -> None:
        await platform.registration.register(_definition("g", on or {"event": "g"}, env), {}, {}, "g.json", release)

    await register(None)
    await register(None)
    await register(Release(), N="1")
    await register(Release(), N="1")
    await register(Release(weight=0.5, guarded=True), N="2")
    platform.clock.advance(DAY)
    await it.send("g")
    await platform.registration.change_routing("g", lambda routing, versions, now: paused(routing, drop=False))
    await it.send("g")
    await platform.registration.change_routing("g", lambda routing, versions, now: resumed(routing))
    await register(Release(), {"cron": "0 * * * *"})
    await register(Release(), {"cron": "1 * * * *"})
    platform.clock.advance(DAY)
    await it.send("g")
    await platform.registration.retire(["g"])
    await platform.registration.change_routing("g", lambda routing, versions, now: deleted(routing))
    for n in range(30):
        await it.deploy(f"many-{n}", on={"event": "many", "expression": f"event.data.n == {n}"})
    await it.send("many", data={"n": -1})
    it.queries.read_events(name="many")
    platform.store.functions.live()
    platform.store.functions.dotenv("once", "a")
    needed_versions(platform.store.connection)


def _definition(function: str, trigger: dict[str, str], env: dict[str, str]) -> dict[str, Any]:
    step = {"runtime": {"type": "docker", "image": "x"}, "env": env}
    return parse_definition({"id": function, "triggers": [trigger], "steps": {"a": step}}).normalised()


async def _types(it: Scripted) -> None:
    types = TypeControl(it.platform, it.queries, _asked(it))
    versions = [TypeVersion("typed", str(n), {"properties": {"data": {"type": "object"}}}, Policy.WARN) for n in (1, 2)]
    changed = TypeVersion("typed", "2", {"properties": {"data": {"type": "object", "title": "x"}}}, Policy.WARN)

    def change() -> None:
        types.register_types(versions)
        types.register_types(versions)
        types.register_types([changed])
        types.set_policy("typed", Policy.REJECT)
        types.choose_default("typed", "1")
        types.set_unknown_types(Policy.OFF)
        types.read_types()
        types.read_type("typed")
        types.read_schema("typed", "1")
        types.unknown_types()

    await _call(it, change)
    await it.send("typed", data={})
    await _call(it, lambda: [types.remove_version("typed", name, []) for name in ("2", "1")])


async def _webhooks(it: Scripted) -> None:
    webhooks = LocalWebhooks(it.platform, lambda name: None, "http://x")
    control = WebhookControl(webhooks, it.queries, _asked(it))
    rule = {"name": "hook", "event": "hook"}
    await webhooks.synchronise([(rule, "hook.json")], [])
    assert webhooks.rule("hook") is not None
    await _call(it, lambda: (control.read_webhooks(), control.remove_webhook("hook")))
    await webhooks.synchronise([], [])


async def _sources(it: Scripted) -> None:
    sources = LocalSources(it.platform, lambda name: None)
    control = SourceControl(sources, it.queries, _asked(it))
    definition = {"name": "orders", "type": "redis", "url": "redis://127.0.0.1:1", "stream": "s", "event": "x"}
    await sources.synchronise([(definition, "orders.json")], [])
    reason = NoEvent(Kind.UNREADABLE, "not JSON")
    for number in range(3):
        record = Record(f"redis/s/{number}-0", b"{" if number else b"{}")
        await it.platform.in_transaction(
            lambda connection, now, r=record: put_in_quarantine(connection, "orders", [(r, reason)], now)  # type: ignore[misc]
        )
    items = control.read_quarantine("orders", None, 10).items
    numbers = [item.number for item in items]
    assert await _call(it, lambda: control.retry_quarantined("orders", numbers)) == numbers[-1:]
    control.read_quarantined("orders", numbers[0])
    await _call(it, lambda: control.discard_quarantined("orders", numbers[:1]))
    await _call(it, lambda: (control.pause_source("orders"), control.resume_source("orders"), control.read_sources()))
    await sources.synchronise([], [])
    await sources.put(definition)
    await it.platform.in_transaction(lambda c, now: put_in_quarantine(c, "orders", [(record, reason)], now))
    sources.start()
    await sources.close()


async def _celery(it: Scripted) -> None:
    """Callers of tasks wait: for a run that has ended, for an event that starts nothing, for a record in quarantine."""
    source = {"name": "shop", "type": "celery", "event": "x", "broker": "memory://", "backend": "cache+memory://"}
    sources = LocalSources(it.platform, lambda name: None)
    await sources.put(source)
    await it.deploy("task", on="task")
    await it.send("task", id="task-1")
    await _end(it)
    await it.send("nothing", id="nothing-2")
    records = [Record(f"celery/{name}", b"{}") for name in ("1", "2", "3")]
    waiting = {record.id: Call(record.id, "", "", True) for record in records}
    polled = Polled(records, CeleryToken(calls=waiting, revoked=["3"]))
    events = [Event(f"{name}-{n}", name, {}, {}, 0, None, b"{}") for n, name in ((1, "task"), (2, "nothing"))]
    calls = CeleryCalls(it.platform, lambda name: None)
    refused = [(records[2], NoEvent(Kind.UNREADABLE, "no task"))]
    await calls.accepted(source, polled, zip(events, records, strict=False), refused)
    calls.start()
    await until(lambda: _count(it, "celery_calls") == 0)
    await calls.close()


async def _time(it: Scripted) -> None:
    """The clock is set back while there are timers of all kinds."""
    await it.deploy("ticks", on={"cron": "0 * * * *"})
    await it.deploy("guarded", on="guarded")
    await it.deploy("later", on="later", a=RETRY, b=WAIT, d=DELAY)
    it.platform.clock.advance(10 * DAY)
    for outcome in (None, FAILED):
        await it.send("later", data={"n": 3}, user=ADA)
        await _end(it, outcome)
    await until(lambda: _count(it, "waits") == 1)
    definition = _definition("guarded", {"event": "guarded"}, {"N": "3"})
    await it.platform.registration.register(definition, {}, {}, "guarded.json", Release(weight=0.5, guarded=True))
    it.platform.clock.advance(-9 * DAY)
    await it.send("x")
    await it.platform.batches.do(lambda batch: batch.set_timer("unknown", Timer(TimerKind.DELAY, 0), 0))


async def _erasure(it: Scripted) -> None:
    users, execute = _users(it), it.platform.store.connection.execute
    execute("ANALYZE")  # as older versions did
    it.runner.release()
    erased = await _call(it, lambda: users.erase(_found(users)))
    assert erased.is_done


async def _age(it: Scripted) -> None:
    it.platform.clock.advance(40 * DAY)
    await clean(it.platform, 30)


def _files(folder: Path) -> None:
    keys = KeyStore(folder / "db")
    key, secret = keys.create(KeyScope.SEND, "name", 1)
    assert keys.scope_of(secret) is not None
    assert keys.list()
    keys.revoke(key.id, 2)
    keys.close()
    (folder / "scratch").mkdir()
    back_up(folder / "db", folder / "code", io.BytesIO(), folder / "scratch", lambda *_: None)
