"""Events a second from a stream of Redis."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from measured import Missing, Row
from source_rate import rows

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def measure(quick: bool) -> list[Row]:
    if shutil.which("redis-server") is None and shutil.which("valkey-server") is None:
        raise Missing("redis-server is not installed")
    return rows(_filled, quick)


@contextmanager
def _filled(folder: Path, bodies: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    import redis

    from tests.brokers import redis_server

    with redis_server(folder) as port, redis.Redis(port=port) as client:
        pipeline = client.pipeline(transaction=False)
        for body in bodies:
            pipeline.xadd("orders", {"body": body})
        pipeline.execute()
        yield {"type": "redis", "url": f"redis://127.0.0.1:{port}", "stream": "orders", "field": "body"}
