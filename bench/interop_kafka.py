"""Events a second from a topic of Kafka with two partitions."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from measured import Missing, Row
from server import PATIENCE_S, BenchError
from source_rate import rows

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def measure(quick: bool) -> list[Row]:
    if importlib.util.find_spec("confluent_kafka") is None:
        raise Missing("pip install 'stepwell[kafka]'")
    return rows(_filled, quick)


@contextmanager
def _filled(folder: Path, bodies: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

    from tests.brokers import kafka_broker

    with kafka_broker(folder) as address:
        options = {"bootstrap.servers": address, "log_level": 0}
        admin = AdminClient(options)
        for made in admin.create_topics([NewTopic("orders", 2, 1)]).values():
            made.result(10)
        producer = Producer({**options, "linger.ms": 50, "queue.buffering.max.messages": 1_000_000})
        for number, body in enumerate(bodies):
            producer.produce("orders", body, partition=number % 2)
        if producer.flush(PATIENCE_S):
            raise BenchError("the broker did not take all records")
        yield {"type": "kafka", "brokers": [address], "topics": ["orders"]}
