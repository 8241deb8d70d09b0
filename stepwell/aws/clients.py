"""Clients of AWS services, made when they are first used: a cold start pays only for those it needs."""

from __future__ import annotations

import threading
from typing import Any

_lock = threading.Lock()
_clients: dict[str, Any] = {}


def client(service: str) -> Any:
    """The process's client of a service; clients may be used from several threads."""
    found = _clients.get(service)
    if found is None:
        with _lock:
            if service not in _clients:
                _clients[service] = _make(service)
            found = _clients[service]
    return found


def reset() -> None:
    """Forget all clients, as a new process would."""
    with _lock:
        _clients.clear()


def _make(service: str) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "total_max_attempts": 4},
        connect_timeout=2,
        read_timeout=10,
        max_pool_connections=32,
        tcp_keepalive=True,
    )
    return boto3.client(service, config=config)
