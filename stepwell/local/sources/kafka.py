"""Reads topics of Kafka with librdkafka.

One server reads a source, so it takes all partitions itself, and joins no group: nothing is rebalanced, and reading
continues at once after a crash. The group's name is only where the offsets are committed.
https://docs.confluent.io/platform/current/clients/confluent-kafka-python/html/index.html ;
https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from confluent_kafka import OFFSET_STORED, Consumer, KafkaError, KafkaException, TopicPartition

from stepwell.core.sources.places import Place
from stepwell.core.sources.records import Record, header_text
from stepwell.local.sources.lag import Lag, total
from stepwell.local.sources.reader import CannotSeek, Polled, ReaderSettings

_GROUP = "stepwell-"  # followed by the source's name
_TIMEOUT_S = 10.0
_NEW_PARTITIONS_S = 60.0  # between two looks for new partitions
_MEMORY_KB = 16 * 1024  # of records that librdkafka has fetched ahead
_MECHANISMS = {"plain": "PLAIN", "scram-sha-256": "SCRAM-SHA-256", "scram-sha-512": "SCRAM-SHA-512"}
_ENDING = frozenset({KafkaError._AUTHENTICATION, KafkaError._ALL_BROKERS_DOWN, KafkaError._SSL})
_PROTOCOLS = {(True, True): "SASL_SSL", (True, False): "SASL_PLAINTEXT", (False, True): "SSL"}  # by SASL and TLS

Json = dict[str, Any]


class KafkaReader:
    """Implements `Reader`."""

    def __init__(self, settings: ReaderSettings) -> None:
        fields = settings.settings
        self._topics: list[str] = fields["topics"]
        self._group = fields.get("group", f"{_GROUP}{settings.name}")
        self._options = _options(fields, self._group)
        self._problem: KafkaError | None = None
        self._cluster = ""
        self._assigned: set[tuple[str, int]] = set()
        self._look_due = 0.0
        self._consumer: Any = None

    def open(self) -> None:
        self._consumer = Consumer({**self._options, "error_cb": self._note})
        self._assign()

    def _note(self, error: KafkaError) -> None:
        """Called by librdkafka, which itself tries again after most errors."""
        if error.fatal() or error.code() in _ENDING:
            self._problem = error

    def _assign(self) -> None:
        """Takes all partitions, also those that were added."""
        try:
            metadata = self._consumer.list_topics(timeout=_TIMEOUT_S)
        except KafkaException as error:
            self._check()  # says why, such as a wrong password, where this is only a time-out
            raise ConnectionError(
                f"no broker answers at {self._options['bootstrap.servers']}: {_text(error)}"
            ) from None
        self._cluster = metadata.cluster_id or "-"
        new = []
        for name in self._topics:
            topic = metadata.topics.get(name)
            if topic is None or topic.error is not None:
                why = "" if topic is None else f" ({topic.error.str()})"
                raise LookupError(f"the topic {name} does not exist, or may not be read{why}")
            new += [(name, number) for number in topic.partitions if (name, number) not in self._assigned]
        if new:
            self._assigned |= set(new)
            self._consumer.incremental_assign([TopicPartition(name, number, OFFSET_STORED) for name, number in new])
        self._look_due = time.monotonic() + _NEW_PARTITIONS_S

    def _check(self) -> None:
        if self._problem is not None:
            problem, self._problem = self._problem, None
            raise ConnectionError(problem.str())

    def poll(self, most: int, wait_s: float) -> Polled:
        if time.monotonic() > self._look_due:
            self._assign()
        first = self._consumer.poll(wait_s)
        messages = [] if first is None else [first, *self._consumer.consume(most - 1, 0.0)] if most > 1 else [first]
        if not messages:
            self._check()
            return Polled()
        records, offsets = [], {}
        for message in messages:
            if (error := message.error()) is not None:
                raise ConnectionError(error.str())
            record = self._record(message)
            records.append(record)
            offsets[message.topic(), message.partition()] = message.offset() + 1
        return Polled(records, offsets)

    def _record(self, message: Any) -> Record:
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        kind, at = message.timestamp()
        at = at if kind else None
        key, value = message.key(), message.value()
        headers = {name.lower(): header_text(text) for name, text in message.headers() or ()}
        place = {
            "topic": topic,
            "partition": partition,
            "offset": offset,
            "key": None if key is None else header_text(key),
            "timestamp": at,
        }
        record_id = f"kafka/{self._cluster}/{topic}/{partition}/{offset}"
        return Record(record_id, None if value is None else _bytes(value), headers, place, at)

    def commit(self, polled: Polled) -> None:
        if polled.token:
            self._store((topic, partition, offset) for (topic, partition), offset in polled.token.items())

    def _store(self, places: Iterable[tuple[str, int, int]]) -> None:
        offsets = [TopicPartition(topic, partition, offset) for topic, partition, offset in places]
        for done in self._consumer.commit(offsets=offsets, asynchronous=False):
            if done.error is not None:
                raise ConnectionError(f"the offsets of group {self._group} cannot be committed: {done.error.str()}")

    def lag(self) -> Lag:
        partitions = [TopicPartition(topic, number) for topic, number in sorted(self._assigned)]
        places = {(at.topic, at.partition): at.offset for at in self._consumer.position(partitions)}
        unknown = [at for at in partitions if places[at.topic, at.partition] < 0]
        if unknown:
            places |= {(at.topic, at.partition): at.offset for at in self._consumer.committed(unknown, _TIMEOUT_S)}
        behind = {}
        for at in partitions:
            place = places[at.topic, at.partition]
            low, high = self._consumer.get_watermark_offsets(at, cached=True)  # of the last fetch, every half second
            if high < 0 or (place < 0 and low < 0):
                low, high = self._ends(at)
            begin = place if place >= 0 else low if self._options["auto.offset.reset"] == "earliest" else high
            behind[f"{at.topic}/{at.partition}"] = max(0, high - max(begin, low))
        return total(behind)

    def position(self) -> Any:
        partitions = [TopicPartition(topic, number) for topic, number in sorted(self._assigned)]
        committed = self._consumer.committed(partitions, _TIMEOUT_S)
        return {f"{at.topic}/{at.partition}": max(0, at.offset) for at in committed}

    def is_before(self, record: Record, position: Any) -> bool:
        place = record.place
        return bool(place["offset"] < position.get(f"{place['topic']}/{place['partition']}", 0))

    def seek(self, place: Place) -> None:
        if place.position:
            self._store(self._places(place.position))
        elif place.time is not None:
            wanted = [TopicPartition(topic, number, place.time) for topic, number in sorted(self._assigned)]
            found = self._consumer.offsets_for_times(wanted, timeout=_TIMEOUT_S)
            self._store((at.topic, at.partition, self._or_end(at)) for at in found)
        else:
            begin = [TopicPartition(topic, number) for topic, number in sorted(self._assigned)]
            self._store((at.topic, at.partition, self._ends(at)[0]) for at in begin)

    def _ends(self, partition: Any) -> tuple[int, int]:
        """The first offset of a partition, and the one after the last: as the broker says, or the last fetch."""
        low, high = self._consumer.get_watermark_offsets(partition, timeout=_TIMEOUT_S, cached=False)
        _, fetched = self._consumer.get_watermark_offsets(partition, cached=True)
        return low, max(high, fetched)

    def _or_end(self, found: Any) -> int:
        """The offset that was found for a time; the end, if all records are older."""
        return int(found.offset) if found.offset >= 0 else self._ends(found)[1]

    def _places(self, text: str) -> list[tuple[str, int, int]]:
        places = []
        for part in text.split(","):
            topic, _, rest = part.strip().partition("/")
            number, _, offset = rest.partition("/")
            if not (number.isdigit() and offset.isdigit() and (topic, int(number)) in self._assigned):
                raise CannotSeek(f"{part.strip()!r} is not a place; write topic/partition/offset, as in orders/0/1200")
            places.append((topic, int(number), int(offset)))
        return places

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()


def _options(fields: Json, group: str) -> Json:
    """The configuration of librdkafka. What the user sets in `settings` counts, except for what Stepwell relies on."""
    made: Json = {
        "client.id": "stepwell",
        "auto.offset.reset": fields.get("start", "earliest"),
        "queued.max.messages.kbytes": _MEMORY_KB,
        "socket.timeout.ms": round(_TIMEOUT_S * 1000),
        "log_level": 0,
    }
    tls, sasl = fields.get("tls"), fields.get("sasl")
    if tls or sasl:
        made["security.protocol"] = _PROTOCOLS[bool(sasl), bool(tls)]
    if isinstance(tls, dict):
        names = {"ca": "ssl.ca.location", "certificate": "ssl.certificate.location", "key": "ssl.key.location"}
        made |= {names[name]: value for name, value in tls.items()}
    if sasl:
        made["sasl.mechanism"] = _MECHANISMS.get(sasl["mechanism"].lower(), sasl["mechanism"])
        made |= {"sasl.username": sasl["username"], "sasl.password": sasl["password"]}
    made |= fields.get("settings", {})
    own = {"bootstrap.servers": ",".join(fields["brokers"]), "group.id": group, "enable.auto.commit": False}
    return {**made, **own, "enable.auto.offset.store": False}


def _bytes(value: bytes | str) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def _text(error: KafkaException) -> str:
    found = error.args[0]
    return found.str() if isinstance(found, KafkaError) else str(error)
