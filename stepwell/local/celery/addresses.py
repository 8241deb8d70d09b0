"""Addresses of brokers and result backends, which may contain passwords that must not be shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
RPC = "rpc://"
PICKLED = ("db+", "database")  # the beginnings of addresses of Celery's database backend


class BadAddress(Exception):
    """The address of a broker or backend cannot be used. The message contains no secret."""


def expand(field: str, template: str, env: Mapping[str, str]) -> str:
    """The address, with `${NAME}` replaced by the variable or secret of that name. Raises BadAddress."""
    for name in _VARIABLE.findall(template):
        if name not in env:
            raise BadAddress(f"`{field}` names ${{{name}}}, which is neither in env nor in secrets; add it there")
    address = _VARIABLE.sub(lambda match: env[match[1]], template)
    if "://" not in address or not address.isprintable():
        raise BadAddress(f"`{field}` is not an address such as redis://localhost:6379/0")
    return address


def check_backend(address: str) -> None:
    """Raises BadAddress for a backend whose results are pickled: reading them would run code of whoever wrote them.

    https://docs.celeryq.dev/en/stable/userguide/configuration.html#database-backend-settings"""
    if address.startswith(PICKLED):
        raise BadAddress("`backend` is a database, in which Celery stores pickles, and these are never read; use redis")


def shown(address: str) -> str:
    """The address without user, password and parameters."""
    try:
        parts = urlsplit(address)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return address.partition("://")[0] + "://..."
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def without_secrets(text: str, address: str) -> str:
    """The text without the address and the password in it."""
    text = text.replace(address, shown(address))
    try:
        password = urlsplit(address).password
    except ValueError:
        password = None
    for secret in {password, unquote(password)} if password else ():
        text = text.replace(secret, "***")
    return text


def is_redis(address: str) -> bool:
    """Whether results at this address are pushed by Redis."""
    return address.partition("://")[0] in ("redis", "rediss")
