"""Connections to Redis with the addresses that Celery uses."""

from __future__ import annotations

import re
from typing import Any

from stepwell.local.celery.connections import CONNECT_S

_CERTIFICATES = re.compile(r"(?<=ssl_cert_reqs=)CERT_(REQUIRED|OPTIONAL|NONE)")


def redis_client(address: str) -> Any:
    """A client, which connects when it is used. Celery also accepts the names of Python's constants for certificates.

    https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/redis.html#configuration"""
    import redis

    address = _CERTIFICATES.sub(lambda found: found[1].lower(), address)
    return redis.Redis.from_url(
        address, socket_connect_timeout=CONNECT_S, socket_timeout=30, health_check_interval=25, protocol=2
    )
