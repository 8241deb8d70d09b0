"""Webhooks on AWS: requests of API Gateway, and the number of reads."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from dataclasses import replace

import pytest

from stepwell.aws.api.ingest import Ingest, ingest_of
from stepwell.aws.clients import client
from stepwell.aws.functions.webhooks import AwsHooks, AwsWebhooks
from stepwell.aws.naming import secret_parameter
from stepwell.aws.resources import Resources
from tests.aws.test_ingest import Json, accepted, http, queued, refused

RULE: Json = {
    "name": "shop",
    "event": "shop/{{ headers['x-kind'] }}",
    "id": "query.id",
    "verify": {"type": "hmac", "secret": "SHOP", "header": "x-signature"},
}


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def direct(resources: Resources) -> Resources:
    return replace(resources, ingest="direct")


@pytest.fixture
def ingest(direct: Resources) -> Ingest:
    AwsWebhooks(direct).put_webhook(RULE)
    set_secret(direct, "one")
    return ingest_of(direct)


@pytest.fixture
def asked(ingest: Ingest) -> list[str]:
    """The names of the requests to the table and to SSM so far."""
    made: list[str] = []
    for service in ("dynamodb", "ssm"):
        remember: Callable[..., None] = lambda model, **_: made.append(model.name)  # noqa: E731
        client(service).meta.events.register(f"before-call.{service}.*", remember)
    return made


def set_secret(resources: Resources, value: str) -> None:
    name = secret_parameter(resources.env, "SHOP")
    client("ssm").put_parameter(Name=name, Value=value, Type="SecureString", Overwrite=True)


def signed(body: str | bytes, secret: str = "one", path: str = "/webhooks/shop", query: str = "") -> Json:
    content = body if isinstance(body, bytes) else body.encode()
    signature = hmac.new(secret.encode(), content, "sha256").hexdigest()
    request = http(path, body, x_signature=signature, x_kind="order", content_type="application/json")
    return {**request, "rawQueryString": query}


def test_a_request_is_an_event_in_the_queue_before_it_is_answered(ingest: Ingest, direct: Resources) -> None:
    for body, n in (('{"text": "é"}', 1), ('{"text": "é"}'.encode(), 2)):
        assert accepted(ingest(signed(body, query=f"id=a%2F{n}"))) == [f"webhook:shop:a/{n}"]
    events = sorted(queued(direct), key=lambda event: str(event["id"]))
    assert [(event["name"], event["data"], event["id"]) for event in events] == [
        ("shop/order", {"text": "é"}, f"webhook:shop:a/{n}") for n in (1, 2)
    ]


def test_a_rule_and_its_secret_are_read_once_a_minute(ingest: Ingest, asked: list[str]) -> None:
    accepted(ingest(signed("{}", query="id=1")))
    assert asked == ["GetItem", "GetParameters", "GetItem"]  # the last ones are the event types, as for any event
    accepted(ingest(signed("{}", query="id=1")))
    assert len(asked) == 3


def test_what_was_remembered_counts_for_a_minute(direct: Resources) -> None:
    time = Time()
    hooks, webhooks = AwsHooks(direct, time), AwsWebhooks(direct)
    assert hooks.rule("shop") is None
    webhooks.put_webhook(RULE)
    assert hooks.rule("shop") is None
    time.now += 60
    assert hooks.rule("shop") is not None
    webhooks.remove_webhook("shop")
    assert hooks.rule("shop") is not None
    time.now += 60
    assert hooks.rule("shop") is None


def test_a_secret_that_was_changed_counts_for_the_next_request_that_is_signed_with_it(direct: Resources) -> None:
    time = Time()
    hooks = AwsHooks(direct, time)
    set_secret(direct, "one")
    assert hooks.secret("SHOP") == "one"
    set_secret(direct, "two")
    time.now += 9
    assert hooks.secret("SHOP", again=True) == "one", "nobody can make it ask more often"
    time.now += 1
    assert hooks.secret("SHOP") == "one"
    assert hooks.secret("SHOP", again=True) == hooks.secret("SHOP") == "two"


def test_a_name_that_cannot_be_is_not_looked_for(ingest: Ingest, asked: list[str]) -> None:
    for name in ("", "A", "a/b", "x" * 65, "%61", "a\n", "é"):
        refused(ingest(http(f"/webhooks/{name}", "{}")), 404)
    assert asked == []


def test_guesses_cost_one_look_each(ingest: Ingest, asked: list[str]) -> None:
    for _ in range(3):
        refused(ingest(http("/webhooks/none", "{}")), 404)
    assert asked == ["GetItem"]


def test_a_missing_secret_is_logged_and_asked_for_again(direct: Resources, caplog: pytest.LogCaptureFixture) -> None:
    AwsWebhooks(direct).put_webhook(RULE)
    ingest = ingest_of(replace(direct, keys_cache_s=0))
    with caplog.at_level(logging.ERROR):
        answer = ingest(signed("{}", query="id=1"))
    refused(answer, 503)
    assert answer["headers"]["retry-after"] == "30"
    assert "secret SHOP" in caplog.text
    assert list(queued(direct)) == []
    set_secret(direct, "one")
    accepted(ingest(signed("{}", query="id=1")))


def test_a_secret_that_cannot_be_read_is_logged_and_the_sender_comes_again(
    ingest: Ingest, caplog: pytest.LogCaptureFixture
) -> None:
    def deny(**_: object) -> None:
        raise PermissionError("ssm:GetParameters is denied")

    client("ssm").meta.events.register("before-call.ssm.*", deny)
    refused(ingest(signed("{}", query="id=1")), 503)
    assert "the secret SHOP cannot be read" in caplog.text


def test_an_event_that_cannot_be_stored_is_not_accepted(
    ingest: Ingest, direct: Resources, caplog: pytest.LogCaptureFixture
) -> None:
    client("sqs").delete_queue(QueueUrl=direct.events_queue)
    refused(ingest(signed("{}", query="id=1")), 503)
    assert "could not be sent on" in caplog.text


@pytest.mark.parametrize("method", ["OPTIONS", "DELETE", "PUT"])
def test_webhooks_are_sent_with_post_and_by_no_page(ingest: Ingest, method: str) -> None:
    answer = ingest({**http("/webhooks/shop", "", method, origin="https://a.b")})
    refused(answer, 405)
    assert "access-control-allow-origin" not in answer["headers"]


def test_a_put_that_changes_nothing_writes_nothing(direct: Resources) -> None:
    webhooks: AwsWebhooks = AwsWebhooks(direct)
    put: Callable[[Json], bool] = webhooks.put_webhook
    assert (put(RULE), put(RULE), put({**RULE, "event": "x"})) == (True, False, True)
    assert (webhooks.remove_webhook("shop"), webhooks.remove_webhook("shop")) == (True, False)
