"""Who may do what: keys and their scopes, and the requests that a browser may not make to a local server."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import Protocol
from urllib.parse import urlsplit

from stepwell.api.http.problem import Problem


class KeyScope(StrEnum):
    SEND = "send"  # may send events: such keys sit in browsers
    MANAGE = "manage"  # may use all of the API


@dataclass(frozen=True, slots=True)
class Key:
    """A key as lists show it: its secret is shown once, and stored hashed. Times are ms since the epoch."""

    id: str
    scope: KeyScope
    name: str
    created_at: int
    revoked_at: int | None


def new_key(scope: KeyScope, name: str, now: int) -> tuple[Key, str]:
    """A key, and its secret."""
    return Key(secrets.token_hex(4), scope, name, now, None), f"sw_{scope.value}_{secrets.token_urlsafe(24)}"


class Keys(Protocol):
    def scope_of(self, key: str | None) -> KeyScope | None:
        """What this key allows; None if it is unknown or revoked."""


class AnyKey:
    """For a server that only this machine reaches: any key will do, and none too; or just the one that is given."""

    def __init__(self, only: str | None = None) -> None:
        self._only = only

    def scope_of(self, key: str | None) -> KeyScope | None:
        return KeyScope.MANAGE if self._only is None or key == self._only else None


def bearer(header: str | None) -> str | None:
    """The token of an `Authorization: Bearer` header (RFC 6750), if it is one."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def require(keys: Keys, key: str | None, scope: KeyScope) -> None:
    """Raises Problem 401 for an unknown key, 403 for one that does not allow this."""
    key_scope = keys.scope_of(key)
    if key_scope is None:
        what = "this key is unknown or revoked" if key else "a key is needed: Authorization: Bearer <key>"
        raise Problem(401, f"{what}; `stepwell keys create` makes one", {"www-authenticate": "Bearer"})
    if scope is KeyScope.MANAGE and key_scope is not KeyScope.MANAGE:
        raise Problem(403, "this key may only send events; a key of scope manage is needed here")


class LocalOnly:
    """Refuses what another site's page may make a browser send to a local server: a foreign Origin, or a Host that is
    a name which somebody else's DNS points here (DNS rebinding). `allowed`: names that are no danger, `*.local` for all
    below one."""

    def __init__(self, host: str, allowed: Iterable[str] = ()) -> None:
        """Raises ValueError for an allowed host that is no name."""
        self._names = {"localhost", host.lower()}
        self._endings = [".localhost"]
        for name in map(_allowed, allowed):
            if name.startswith("*."):
                self._endings.append(name[1:])
            else:
                self._names.add(name)
        self._passed: set[tuple[str | None, str | None]] = set()  # few, and the same for every request of a client

    def check(self, host: str | None, origin: str | None) -> None:
        """Raises Problem 403."""
        if (host, origin) not in self._passed:
            self._check(host, origin)
            if len(self._passed) < 1000:
                self._passed.add((host, origin))

    def _check(self, host: str | None, origin: str | None) -> None:
        if host and not self._is_ours(name := _host_name(f"//{host}"), any_address=True):
            cure = f"`stepwell dev --allow-host {name}` allows it; " if _is_name(name) else ""
            why = f"this server does not answer for the host {host!r}; {cure}localhost and 127.0.0.1 always work"
            raise Problem(403, why)
        if origin and not self._is_ours(name := _host_name(origin), any_address=False):
            cure = f"; `stepwell dev --allow-host {name}` allows them" if _is_name(name) else ""
            raise Problem(403, f"pages of {origin!r} may not use this server{cure}")

    def _is_ours(self, name: str | None, *, any_address: bool) -> bool:
        if name is None:
            return False
        name = name.removesuffix(".")
        if name in self._names or name.endswith(tuple(self._endings)):
            return True
        try:
            address = ip_address(name)
        except ValueError:
            return False
        return any_address or address.is_loopback


def _is_name(name: str | None) -> bool:
    return name is not None and re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", name) is not None


def _allowed(text: str) -> str:
    name = text.strip().lower()
    if not _is_name(name.removeprefix("*.")):
        raise ValueError(f"{text!r} is no host such as host.docker.internal or *.local, without scheme and port")
    return name


def _host_name(url: str) -> str | None:
    """In small letters; None if there is none, or the URL is none."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
