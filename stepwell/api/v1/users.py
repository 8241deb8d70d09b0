"""`/v1/users`: the users of events, their timelines, and their erasure.

One rule: a user is asked for by any of its ids, and shown under its canonical one. Ids stand in the query: what is
between sender and server decodes paths, and would make one id of another. Paths take only ids of plain characters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import Request

from stepwell.api.http.problem import Problem
from stepwell.api.openapi import Operation, Parameter
from stepwell.api.paging import PAGING, alone, found, limit_of, page, paging
from stepwell.api.v1.timeline import Entry, Mark, cursor_of, mark_of
from stepwell.api.views import user_models as models
from stepwell.core.events.users import KINDS, Person
from stepwell.core.times import time_text
from stepwell.reader import Page

_PLAIN = re.compile(r"[A-Za-z0-9_@+:.-]{1,256}")


@dataclass(frozen=True, slots=True)
class Seen:
    """A person, with the times (ms) at which its first and last stored events were accepted."""

    person: Person
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Erased:
    """What was erased, counted by kind. `is_done` is false if something is left: erase again to go on."""

    counts: models.ErasedCounts
    is_done: bool


class Users(Protocol):
    """The users of a platform. Methods are called from any thread."""

    def read_users(self, *, before: int | None, limit: int) -> Page[Person]:
        """Users with more than one id or with traits, newest first."""

    def find(self, text: str) -> Person | None:
        """The user with this id, of the first of `KINDS` that has it, also if an event has given nothing but the id."""

    def seen(self, person: Person) -> Seen: ...

    def timeline(self, person: Person, *, before: Mark | None, limit: int) -> Sequence[Entry]:
        """What happened to a person before a mark, newest first."""

    def erase(self, person: Person) -> Erased:
        """Erase all data of a person, or as much as there is time for."""


@dataclass(frozen=True, slots=True)
class UserEndpoints:
    users: Users

    def list_users(self, request: Request) -> Any:
        if (text := alone(request, "id")) is None:
            return page(self.users.read_users(**paging(request)), user_view)
        person = self.users.find(text)
        return {"data": [] if person is None else [self._detail(person)], "next": None}

    def get_user(self, request: Request) -> Any:
        return self._detail(self._person(request))

    def _detail(self, person: Person) -> models.UserDetail:
        seen = self.users.seen(person)
        since = min(seen.first, seen.person.since)
        return {**user_view(seen.person), "first_seen": time_text(since), "last_seen": time_text(seen.last)}

    def get_timeline(self, request: Request) -> Any:
        person = self._person(request)
        limit, after = limit_of(request), request.query_params.get("after")
        entries = self.users.timeline(person, before=None if after is None else mark_of(after), limit=limit + 1)
        cursor = cursor_of(entries[limit - 1].mark) if len(entries) > limit else None
        return {"data": [entry.shown for entry in entries[:limit]], "next": cursor}

    def erase_user(self, request: Request) -> Any:
        person = self._person(request)
        erased = self.users.erase(person)
        return {**_named(person), "erased": erased.counts, "done": erased.is_done}

    def _person(self, request: Request) -> Person:
        text = request.query_params.get("id", request.path_params.get("id"))
        if text is None:
            raise Problem(400, "whose? name any id of the user with id=")
        if "id" in request.path_params and not _PLAIN.fullmatch(text):
            raise Problem(400, "an id with such characters may not arrive as it was sent; use the query: ?id=")
        person: Person = found(self.users.find(text), "user", text)
        return person


_ID = Parameter("id", "any id of the user: external_id, id, email or phone")

USER_OPERATIONS = (
    Operation("GET", "/v1/users", "list_users",
              "Users of whom more is known than one id, newest first; with id, the one user whom it means",
              models.UserList, (_ID, *PAGING)),
    Operation("GET", "/v1/users/timeline", "get_timeline",
              "A user's events and runs, and the ends of their steps, newest first", models.Timeline, (_ID, *PAGING),
              errors=(404,)),
    Operation("DELETE", "/v1/users", "erase_user", "Erase what is kept of a user; again until it is done",
              models.ErasedView, (_ID,), errors=(404, 503)),
    Operation("GET", "/v1/users/{id}/timeline", "get_timeline", "", models.Timeline, PAGING, is_alias=True),
    Operation("GET", "/v1/users/{id}", "get_user", "", models.UserDetail, is_alias=True),
    Operation("DELETE", "/v1/users/{id}", "erase_user", "", models.ErasedView, is_alias=True),
)  # fmt: skip


# --- views -----------------------------------------------------------------------------------------------------------


def user_view(person: Person) -> models.UserView:
    traits = sorted(person.traits.items())
    return {
        **_named(person),
        "traits": {name: {"value": trait.value, "at": time_text(trait.at)} for name, trait in traits},
        "known_since": time_text(person.since),
    }


def _named(person: Person) -> models.UserName:
    ids: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for user_id in sorted(person.ids):
        ids[KINDS[user_id.kind]].append(user_id.text)
    return {"id": person.root.text, "ids": ids}
