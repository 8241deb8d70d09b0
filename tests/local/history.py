"""A database with a random history, written as rows. A few users and functions have most of it, as in practice."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import orjson

from stepwell.core.compile import compile_plan
from stepwell.core.definition.definition import parse_definition
from stepwell.core.events.users import KINDS, Person, UserId, pack
from stepwell.core.plan import Plan
from stepwell.core.run.run import RunStatus, new_run
from stepwell.core.run.run import pack as pack_run
from stepwell.local.database.schema import connect, migrate

FUNCTIONS, NAMES, REPLAYS = ("f", "g"), ("go", "stop", "rare"), ("r1", "r2")
TEXTS = ("hot", "7", "x@example.com", "cold", "nobody")
STEP = {"runtime": {"type": "docker", "image": "x"}}


class History:
    """`people`: one person with several ids, and people with one id each."""

    def __init__(self, path: Path, seed: int, events: int = 300) -> None:
        self._random = random.Random(seed)
        self.connection = connect(path)
        migrate(self.connection)
        self._plans = {(f, v): self._version(f, v) for f in FUNCTIONS for v in (1, 2, 3)}
        known = Person(frozenset({UserId(0, "hot"), UserId(1, "7"), UserId(2, "x@example.com")}), {}, 1000)
        self._know(known)
        alone = [Person(frozenset({UserId(kind, text)}), {}, 1000) for kind in range(len(KINDS)) for text in TEXTS]
        self.people = [known, *(person for person in alone if not person.ids <= known.ids)]
        for number in range(events):
            self._know(Person(frozenset({UserId(1, f"id-{number}"), UserId(2, f"{number}@b.c")}), {}, 1000))
        self._at, self._runs = 1_000_000, 0
        with self.connection:
            for seq in range(1, events + 1):
                self._event(seq)

    def _version(self, function: str, version: int) -> Plan:
        raw = {"id": function, "triggers": [{"event": "go"}], "steps": {"a": STEP, "b": STEP}}
        definition = parse_definition(raw).normalised()
        self.connection.execute(
            "INSERT INTO versions (function, version, hash, created_at, definition, code)"
            " VALUES (?, ?, 'h', 0, ?, '{}')",
            (function, version, orjson.dumps(definition)),
        )
        return compile_plan(definition, version)

    def _know(self, person: Person) -> None:
        seq = self.connection.execute("INSERT INTO people (record) VALUES (?)", (pack(person),)).lastrowid
        ids = [(user_id.kind, user_id.text, seq) for user_id in person.ids]
        self.connection.executemany("INSERT INTO person_ids VALUES (?, ?, ?)", ids)

    def _tick(self) -> int:
        self._at += self._random.choice((0, 0, 1, 300, 2_000))
        return self._at

    def _event(self, seq: int) -> None:
        chance = self._random
        text = chance.choice((None, "hot", "hot", "hot", "7", "x@example.com", "cold"))
        kind = 0 if text == "hot" else chance.randrange(len(KINDS))
        user = {} if text is None else {KINDS[kind]: text}
        body = orjson.dumps({"name": "go", "data": {}, "user": user, "id": f"e{seq}", "ts": 0, "v": "1"})
        name, at = chance.choice(NAMES[:2] * 9 + NAMES[2:]), self._tick()
        self.connection.execute(
            "INSERT INTO events (seq, id, name, user, accepted_at, body) VALUES (?, ?, ?, ?, ?, ?)",
            (seq, f"e{seq}", name, text, at, body),
        )
        for _ in range(chance.choice((0, 1, 1, 2))):
            self._run(seq, text)

    def _run(self, event: int, user: str | None) -> None:
        chance = self._random
        self._runs += 1
        seq, at = self._runs, self._tick()
        function, version = chance.choice(FUNCTIONS), chance.choice((1, 2, 3))
        status = chance.choice((RunStatus.COMPLETED,) * 4 + tuple(RunStatus))
        run = new_run(f"run{seq}", self._plans[function, version], at)._replace(status=status)
        ended_at = None if status is RunStatus.RUNNING else at + chance.randrange(10_000)
        self.connection.execute(
            'INSERT INTO runs (seq, id, function, version, event, user, "after", status, active, created_at, ended_at,'
            " state, replay) VALUES (?, ?, ?, ?, ?, ?, 0, ?, 0, ?, ?, ?, ?)",
            (seq, run.id, function, version, event, user, int(status), at, ended_at, pack_run(run),
             chance.choice((None, None, *REPLAYS))),
        )  # fmt: skip
        for step, attempt in ((0, 1), (0, 2), (1, 1))[: chance.randrange(4)]:
            ended = at + chance.choice((0, 0, 1, 5_000, 500_000))
            self.connection.execute(
                "INSERT INTO attempts (run, step, attempt, status, queued_at, ended_at, user)"
                " VALUES (?, ?, ?, 'completed', ?, ?, ?)",
                (seq, step, attempt, at, ended, user),
            )


def ids(connection: sqlite3.Connection, sql: str, values: tuple[object, ...] = ()) -> list[str]:
    return [row[0] for row in connection.execute(sql, values)]
