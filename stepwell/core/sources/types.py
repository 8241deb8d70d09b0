"""The models of sources, one for each type of broker. `TYPES` lists them; a new type is added there.

A model has the fields that all sources have, and those of the connection. `stepwell.local.sources.readers` names the
module that reads each type.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from stepwell.core.definition.fields import Cel, Duration, Id, Model, pattern
from stepwell.core.rules.template import MAX_EVENT

_SECRET = r"^\$\{[A-Za-z_][A-Za-z0-9_]*\}$"
_GROUP = r"^[^\u0000-\u0020]{1,128}$"


def _secret(text: str) -> str:
    if not re.fullmatch(_SECRET, text):
        raise ValueError("must be the name of a secret, as in ${KAFKA_PASSWORD}; a secret is never stored")
    return text


def _address(text: str) -> str:
    parts = urlsplit(text)
    if not parts.scheme or "://" not in text:
        raise ValueError("is not a URL such as redis://localhost:6379/0; a URL may contain secrets as ${NAME}")
    password = parts.netloc.rpartition("@")[0].partition(":")[2]
    if password and not re.fullmatch(r"(\$\{\w+\})+", password):
        raise ValueError("must not contain a password, which would be stored; write ${NAME}, as in redis://:${PW}@host")
    return text


def _url(text: str) -> str:
    return text if re.fullmatch(_SECRET, text) else _address(text)


def _settings(found: dict[str, str | int | bool]) -> dict[str, str | int | bool]:
    for name, value in found.items():
        if re.search("password|secret|key.pem|oauthbearer.config", name) and not re.fullmatch(_SECRET, str(value)):
            raise ValueError(f"{name} must be the name of a secret, as in ${{KAFKA_PASSWORD}}; it is never stored")
    return found


def _backend(text: str) -> str:
    if text.startswith("db+"):
        raise ValueError("is a database, in which Celery stores pickles; use redis or rpc://")
    return text if text == "rpc://" else _url(text)


Secret = Annotated[str, AfterValidator(_secret), pattern(_SECRET)]
Url = Annotated[str, Field(min_length=1, max_length=2048), AfterValidator(_url)]
Text = Annotated[str, Field(min_length=1, max_length=512)]
Start = Literal["earliest", "latest"]
_START = Field(
    default=None, description="Where a source begins that has read nothing yet: earliest (default) or latest."
)


class Source(Model):
    """The fields that all sources have."""

    schema_: str | None = Field(default=None, alias="$schema", description="The address of this schema, for editors.")
    name: Id = Field(
        default="",
        description="The name of the source: a-z, 0-9 and -. Default: the name of the file.",
        validate_default=False,
    )
    event: Annotated[str, Field(min_length=1, max_length=MAX_EVENT)] | None = Field(
        default=None,
        description="The name of the event: a text that may contain CEL expressions in {{ }}. Required, unless the"
        " records are CloudEvents.",
        examples=["orders/{{ body.kind }}"],
    )
    id: Cel | None = Field(
        default=None, description="A CEL expression for the event's id. Default: the place of the record, or its id."
    )
    data: Cel | None = Field(default=None, description="A CEL expression for the event's data. Default: the body.")
    user: Cel | None = Field(
        default=None, description="A CEL expression for the event's user: an object, or a text as the external_id."
    )
    ts: Cel | None = Field(
        default=None,
        description="A CEL expression for the event's time: milliseconds since 1970 or RFC 3339. Default: the time of"
        " the record.",
    )
    if_: Cel | None = Field(
        default=None, alias="if", description="A CEL expression. Records for which it is false make no event."
    )
    body: Literal["json", "text", "base64"] | None = Field(
        default=None, description="The format of the records' bodies. Default: json."
    )
    batch: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="The most records that are accepted together, 1 to 1,000. Default: 500."
    )


class RedisSource(Source):
    """Reads a stream of Redis or Valkey as a consumer group."""

    type: Literal["redis"] = Field(description="Reads a stream of Redis.")
    url: Url = Field(description="The server's URL.", examples=["redis://:${REDIS_PASSWORD}@localhost:6379/0"])
    stream: Text = Field(description="The key of the stream.")
    group: Annotated[str, pattern(_GROUP), Field(min_length=1, max_length=128)] | None = Field(
        default=None, description="The consumer group, which is created. Default: stepwell."
    )
    start: Start | None = _START
    field: Text | None = Field(
        default=None,
        description="The field of an entry that is the body; the other fields are headers. Default: the body is the"
        " object of all fields, whose values are texts.",
    )
    claim_after: Duration | None = Field(
        default=None,
        description="How long another reader of the group may be silent until the entries that it has read and not"
        " acknowledged are taken over. Default: 1m.",
    )


class Sasl(Model):
    """How a client of Kafka says who it is."""

    mechanism: Literal["plain", "scram-sha-256", "scram-sha-512"] = Field(description="The mechanism of SASL.")
    username: Text = Field(description="The name of the user; it may be a secret as ${NAME}.")
    password: Secret = Field(description="The name of the secret with the password, as ${NAME}.")


class Tls(Model):
    """Files for TLS. Without them, the certificates of the system are trusted."""

    ca: Text | None = Field(default=None, description="The file with the certificates that are trusted.")
    certificate: Text | None = Field(default=None, description="The file with the client's certificate.")
    key: Text | None = Field(default=None, description="The file with the client's key.")


class KafkaSource(Source):
    """Reads topics of Kafka, or of what speaks the same protocol."""

    type: Literal["kafka"] = Field(description="Reads topics of Kafka.")
    brokers: Annotated[list[Text], Field(min_length=1, max_length=100)] = Field(
        description="The addresses of some brokers.", examples=[["kafka-1.example.com:9092"]]
    )
    topics: Annotated[list[Text], Field(min_length=1, max_length=100)] = Field(description="The topics to read.")
    group: Annotated[str, pattern(_GROUP), Field(min_length=1, max_length=128)] | None = Field(
        default=None, description="The group whose offsets are committed. Default: stepwell-<name>."
    )
    start: Start | None = _START
    tls: bool | Tls | None = Field(default=None, description="true for TLS, or the files that it needs.")
    sasl: Sasl | None = Field(default=None, description="The user that reads, if the brokers ask for one.")
    settings: Annotated[dict[str, str | int | bool], AfterValidator(_settings)] | None = Field(
        default=None,
        description="Further settings of librdkafka.",
        examples=[{"fetch.max.bytes": 1000000}],
    )


class SqsSource(Source):
    """Reads a queue of SQS, with the credentials that the AWS SDK finds."""

    type: Literal["sqs"] = Field(description="Reads a queue of SQS.")
    queue: Text = Field(description="The name or the URL of the queue.")
    region: Text | None = Field(default=None, description="The region. Default: as the AWS SDK finds it.")
    endpoint: Url | None = Field(default=None, description="Another address of SQS, for tests.")


class RabbitmqSource(Source):
    """Reads a queue of RabbitMQ, or of another broker that speaks AMQP 0-9-1."""

    type: Literal["rabbitmq"] = Field(description="Reads a queue of RabbitMQ.")
    url: Url = Field(
        description="The broker's URL; the path is the virtual host.",
        examples=["amqp://stepwell:${RABBITMQ_PASSWORD}@localhost:5672//"],
    )
    queue: Text = Field(description="The name of the queue, which must exist.")
    prefetch: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        default=None, description="The most messages that are not acknowledged yet. Default: 1,000."
    )


class PubsubSource(Source):
    """Pulls a subscription of Google Pub/Sub, with the credentials that Google's library finds."""

    type: Literal["pubsub"] = Field(description="Pulls a subscription of Google Pub/Sub.")
    project: Text | None = Field(default=None, description="The project of the subscription.")
    subscription: Text = Field(description="The subscription: the name, or projects/.../subscriptions/....")
    endpoint: Text | None = Field(default=None, description="The address of an emulator, as in localhost:8085.")

    @model_validator(mode="after")
    def _has_project(self) -> Self:
        if self.project is None and not self.subscription.startswith("projects/"):
            raise ValueError("add `project`, or write the subscription as projects/PROJECT/subscriptions/NAME")
        return self


class CelerySource(Source):
    """Reads a queue of a Celery app, as its workers do. Each task that a client calls is an event."""

    type: Literal["celery"] = Field(description="Reads a queue of a Celery app.")
    event: Annotated[str, Field(min_length=1, max_length=MAX_EVENT)] = Field(
        default="celery/{{ body.task }}",
        description="The name of the event: a text that may contain CEL expressions in {{ }}.",
    )
    broker: Url = Field(
        description="The app's `broker_url`.", examples=["redis://:${REDIS_PASSWORD}@localhost:6379/0", "${BROKER}"]
    )
    queue: Text | None = Field(default=None, description="The queue. Default: celery.")
    backend: Annotated[str, Field(min_length=1, max_length=2048), AfterValidator(_backend)] | None = Field(
        default=None,
        description="The app's `result_backend`, into which results are written. Without it, callers get none.",
        examples=["redis://localhost:6379/1", "rpc://"],
    )


TYPES: dict[str, type[Source]] = {
    "kafka": KafkaSource,
    "redis": RedisSource,
    "sqs": SqsSource,
    "rabbitmq": RabbitmqSource,
    "pubsub": PubsubSource,
    "celery": CelerySource,
}
"""The models by type."""
