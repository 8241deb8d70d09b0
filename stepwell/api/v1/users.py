"""`/v1/users`: the users of events, their timelines, and their erasure.

A user is found by any id, and shown under the canonical id. Ids are passed in the query, because proxies may decode a
path and change the id. In paths, only ids of plain characters are accepted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from starlette.requests import Request

from stepwell.api.http.problem import Problem
from stepwell.api.openapi import Operation, Parameter
from stepwell.api.paging import PAGING, exclusive_parameter, found, limit_of, page, paging
from stepwell.api.v1.timeline import Entry, Mark, cursor_of, mark_of
from stepwell.api.views import user_models as models
from stepwell.core.events.users import KINDS, Person
from stepwell.core.times import time_text
from stepwell.reader import Page

_PLAIN = re.compile(r"[A-Za-z0-9_@+:.-]{1,256}")


@dataclass(frozen=True, slots=True)
class Seen:
    """A user, with the times (ms) at which the first and the last stored event were accepted."""

    person: Person
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Erased:
    """The counts of erased items by kind. If `is_done` is false, data is left: erase again to continue."""

    counts: models.ErasedCounts
    is_done: bool


class Users(Protocol):
    """The users of a platform. Methods are called from any thread."""

    def read_users(self, *, before: int | None, limit: int) -> Page[Person]:
        """Users with more than one id or with traits, newest first."""

    def find(self, text: str) -> Person | None:
        """The user with this id, also if only the id is known. Kinds of ids are searched in the order of `KINDS`."""

    def seen(self, person: Person) -> Seen: ...

    def timeline(self, person: Person, *, before: Mark | None, limit: int) -> Sequence[Entry]:
        """The entries of a user's timeline before a mark, newest first."""

    def erase(self, person: Person) -> Erased:
        """Erases all data of a user, or as much as is possible in the time of a request."""


@dataclass(frozen=True, slots=True)
class UserEndpoints:
    users: Users

    def list_users(self, request: Request) -> Any:
        if (text := exclusive_parameter(request, "id")) is None:
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
            raise Problem(400, "the user is missing; pass any id of the user with ?id=")
        if "id" in request.path_params and not _PLAIN.fullmatch(text):
            raise Problem(400, "an id with these characters is not allowed in a path; pass it in the query: ?id=")
        person: Person = found(self.users.find(text), "user", text)
        return person


_ID = Parameter("id", "Any id of the user: external_id, id, email or phone")
_THE_ID = replace(_ID, is_required=True)

USER_OPERATIONS = (
    Operation("GET", "/v1/users", "list_users",
              "List users with several ids or with traits, newest first; with `id`, only that user",
              models.UserList, (_ID, *PAGING)),
    Operation("GET", "/v1/users/timeline", "get_timeline",
              "List a user's events, runs and ended attempts, newest first", models.Timeline, (_THE_ID, *PAGING),
              errors=(404,)),
    Operation("DELETE", "/v1/users", "erase_user", "Erase the data of a user; repeat until `done` is true",
              models.ErasedView, (_THE_ID,), errors=(404, 503)),
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
