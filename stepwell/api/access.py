"""Access control: API keys and their scopes, and protection of a local server against requests of web pages."""

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
    SEND = "send"  # only sending events; such keys may be public, in web pages
    MANAGE = "manage"  # the whole API


@dataclass(frozen=True, slots=True)
class Key:
    """A key without the secret, which is stored hashed and shown only once. Times are ms since the epoch."""

    id: str
    scope: KeyScope
    name: str
    created_at: int
    revoked_at: int | None


def new_key(scope: KeyScope, name: str, now: int) -> tuple[Key, str]:
    """Creates a key. Returns the key and the secret."""
    return Key(secrets.token_hex(4), scope, name, now, None), f"sw_{scope.value}_{secrets.token_urlsafe(24)}"


class Keys(Protocol):
    def scope_of(self, key: str | None) -> KeyScope | None:
        """The scope of a key; None if the key is unknown or revoked."""


class AnyKey:
    """Keys of a development server: any key is accepted, also none; or only one key, if `only` is given."""

    def __init__(self, only: str | None = None) -> None:
        self._only = only

    def scope_of(self, key: str | None) -> KeyScope | None:
        return KeyScope.MANAGE if self._only is None or key == self._only else None


def bearer(header: str | None) -> str | None:
    """The token of an `Authorization: Bearer` header (RFC 6750), or None."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def require(keys: Keys, key: str | None, scope: KeyScope) -> None:
    """Checks that a key has a scope. Raises Problem 401 for an unknown key, 403 for a key without the scope."""
    key_scope = keys.scope_of(key)
    if key_scope is None:
        reason = "this API key is unknown or revoked" if key else "an API key is required: Authorization: Bearer <key>"
        raise Problem(401, f"{reason}; `stepwell keys create` creates one", {"www-authenticate": "Bearer"})
    if scope is KeyScope.MANAGE and key_scope is not KeyScope.MANAGE:
        raise Problem(403, "this API key may only send events; use a key with the scope manage")


class LocalOnly:
    """Refuses requests that a web page of another site can make a browser send to a local server.

    Such a request has a foreign Origin, or a Host whose DNS entry was pointed to this machine (DNS rebinding).
    `allowed` are further host names to accept; `*.local` accepts all names below `local`.
    """

    def __init__(self, host: str, allowed: Iterable[str] = ()) -> None:
        """Raises ValueError for an allowed host that is not a valid name."""
        self._names = {"localhost", host.lower()}
        self._endings = [".localhost"]
        for name in map(_checked_name, allowed):
            if name.startswith("*."):
                self._endings.append(name[1:])
            else:
                self._names.add(name)
        self._passed: set[tuple[str | None, str | None]] = set()  # a cache: all requests of a client have the same pair

    def check(self, host: str | None, origin: str | None) -> None:
        """Checks the headers Host and Origin of a request. Raises Problem 403."""
        if (host, origin) not in self._passed:
            self._check(host, origin)
            if len(self._passed) < 1000:
                self._passed.add((host, origin))

    def _check(self, host: str | None, origin: str | None) -> None:
        if host and not self._is_accepted(name := _host_name(f"//{host}"), any_address=True):
            advice = f"`stepwell dev --allow-host {name}` allows it; " if _is_name(name) else ""
            message = f"this server does not answer for the host {host!r}; {advice}localhost and 127.0.0.1 always work"
            raise Problem(403, message)
        if origin and not self._is_accepted(name := _host_name(origin), any_address=False):
            advice = f"; `stepwell dev --allow-host {name}` allows them" if _is_name(name) else ""
            raise Problem(403, f"pages of {origin!r} may not use this server{advice}")

    def _is_accepted(self, name: str | None, *, any_address: bool) -> bool:
        """`any_address`: accept every IP address, not only loopback addresses."""
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


def _checked_name(text: str) -> str:
    name = text.strip().lower()
    if not _is_name(name.removeprefix("*.")):
        raise ValueError(f"{text!r} is not a host name like host.docker.internal or *.local, without scheme and port")
    return name


def _host_name(url: str) -> str | None:
    """The host name of a URL, in lower case; None if there is none, or the URL is not valid."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
