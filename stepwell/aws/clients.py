"""boto3 clients, created on first use so that a cold start pays only for the services that it needs."""

from __future__ import annotations

import threading
from typing import Any

_lock = threading.Lock()
_clients: dict[str, Any] = {}


def client(service: str) -> Any:
    """The process-wide client of a service. Clients are thread-safe."""
    found = _clients.get(service)
    if found is None:
        with _lock:
            if service not in _clients:
                _clients[service] = _make(service)
            found = _clients[service]
    return found


def reset() -> None:
    """Removes all clients, to imitate a new process in tests."""
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
