"""The modules that read each type of broker. They are imported when the first source of the type starts."""

from __future__ import annotations

from typing import Any

from stepwell.extras import load
from stepwell.local.sources.reader import Reader, ReaderSettings
from stepwell.project.extras import missing_for_source

READERS = {
    "celery": "stepwell.local.sources.celery_queue:CeleryReader",
    "kafka": "stepwell.local.sources.kafka:KafkaReader",
    "pubsub": "stepwell.local.sources.pubsub:PubsubReader",
    "rabbitmq": "stepwell.local.sources.rabbitmq:RabbitmqReader",
    "redis": "stepwell.local.sources.redis_streams:RedisReader",
    "sqs": "stepwell.local.sources.sqs:SqsReader",
}


class NotInstalled(Exception):
    """The library for a type of broker is missing. The message says what to install."""


def make_reader(kind: str, settings: ReaderSettings) -> Reader:
    """A reader for this type of source, not yet connected. Raises NotInstalled."""
    if (missing := missing_for_source(kind)) is not None:
        raise NotInstalled(missing)
    module, _, name = READERS[kind].partition(":")
    reader: Any = getattr(load(module), name)
    made: Reader = reader(settings)
    return made
