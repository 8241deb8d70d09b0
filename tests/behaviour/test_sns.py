"""Webhooks of Amazon SNS: signed messages, and confirmation of subscriptions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.behaviour.words import Answer, Json, Platform
from tests.sns_host import HOST, TOPIC, SnsHost, sns_host


@pytest.fixture
def sns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SnsHost]:
    with sns_host(tmp_path, monkeypatch) as host:
        yield host


def put(platform: Platform, **verify: Any) -> None:
    rule = {
        "event": "sns/{{ body.Type }}",
        "data": "{'message': body.Message}",
        "verify": {"type": "sns", "topics": [TOPIC], **verify},
    }
    platform.api("PUT", "/v1/webhooks/sns", rule)


def post(platform: Platform, message: Json) -> Answer:
    headers = {"content-type": "text/plain; charset=UTF-8", "authorization": "none"}
    return platform.http("POST", "/webhooks/sns", orjson.dumps(message), headers)


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_signed_message_becomes_one_event(platform: Platform, sns: SnsHost, version: str) -> None:
    put(platform)
    message = sns.message(version=version, Subject="An order", Message="line 1\nline 2: é")
    answer = post(platform, message)
    assert answer.json()["ids"] == [f"webhook:sns:{message['MessageId']}"]
    assert platform.event(answer.json()["ids"][0])["data"] == {"message": "line 1\nline 2: é"}
    assert post(platform, message).json() == answer.json()
    assert post(platform, sns.message(version=version)).status == 200
    assert len(platform.events("sns/Notification")) == 2
    fetched = [path for host, path in sns.asked if path]
    assert fetched == [sns.certificate_url.removeprefix(f"https://{HOST}")], "the certificate is fetched once"


def test_a_message_with_a_wrong_signature_is_refused(platform: Platform, sns: SnsHost) -> None:
    put(platform)
    right = sns.message()
    for change in (
        {"Message": "other"},
        {"Subject": "added"},
        {"MessageId": "other"},
        {"Timestamp": "2026-06-01T10:00:01.000Z"},
        {"TopicArn": TOPIC + "2"},
        {"Signature": "AAAA"},
        {"Signature": "no base64!"},
        {"Signature": None},
        {"SignatureVersion": "3"},
        {"SignatureVersion": "1"},
        {"Type": "Other"},
    ):
        answer = post(platform, right | change)
        assert answer.status == 401, change
    for body in (b"", b"[]", b"no JSON", b"{}", b"[" * 300 + b"]" * 300):
        assert platform.http("POST", "/webhooks/sns", body, {"authorization": "none"}).status == 401
    assert platform.events() == []


def test_a_message_of_another_topic_or_an_old_message_is_refused(platform: Platform, sns: SnsHost) -> None:
    put(platform, topics=[f"{TOPIC}-*"])
    assert "may not send here" in orjson.loads(post(platform, sns.message()).body)["detail"]
    assert post(platform, sns.message(TopicArn=f"{TOPIC}-eu")).status == 200
    old = sns.message(TopicArn=f"{TOPIC}-eu", Timestamp="2026-06-01T08:59:00.000Z")
    assert "too old" in orjson.loads(post(platform, old).body)["detail"]


@pytest.mark.parametrize(
    "url",
    [
        "http://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0a.pem",
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0a.pem",  # not the region of the topic
        "https://evil.example/SimpleNotificationService-0a.pem",
        "https://sns.eu-west-1.amazonaws.com.evil.example/SimpleNotificationService-0a.pem",
        "https://sns.eu-west-1.amazonaws.com@evil.example/SimpleNotificationService-0a.pem",
        "https://sns.eu-west-1.amazonaws.com:444/SimpleNotificationService-0a.pem",
        "https://sns.eu-west-1.amazonaws.com/other.pem",
        "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0a.pem?x=1",
        "https://sns.eu-west-1.amazonaws.com/../SimpleNotificationService-0a.pem",
        "https://sns.s3-eu-west-1.amazonaws.com/SimpleNotificationService-0a.pem",
        "https://s3.amazonaws.com/SimpleNotificationService-0a.pem",
        "file:///etc/SimpleNotificationService-0a.pem",
        "https://169.254.169.254/SimpleNotificationService-0a.pem",
        "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0a.pem\nx",
        "",
    ],
)
def test_certificates_are_fetched_only_from_sns(platform: Platform, sns: SnsHost, url: str) -> None:
    put(platform)
    assert post(platform, sns.message(SigningCertURL=url)).status == 401
    assert sns.asked == []


def test_a_subscription_is_confirmed_if_the_rule_allows_it(platform: Platform, sns: SnsHost) -> None:
    put(platform)
    asked = sns.message("SubscriptionConfirmation")
    assert len(post(platform, asked).json()["ids"]) == 1
    assert not any("Action" in path for _, path in sns.asked), "without `confirm`, it only becomes an event"
    put(platform, confirm=True)
    assert post(platform, asked).json()["ids"] == [f"webhook:sns:{asked['MessageId']}"]
    assert sns.asked[-1] == (HOST, f"/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=2336")
    assert len(platform.events("sns/SubscriptionConfirmation")) == 1
    assert post(platform, sns.message("UnsubscribeConfirmation")).status == 200
    assert sum("Action" in path for _, path in sns.asked) == 1


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/?Action=ConfirmSubscription&TopicArn={topic}&Token=2",
        "http://{host}/?Action=ConfirmSubscription&TopicArn={topic}&Token=2",
        "https://{host}/?Action=DeleteTopic&TopicArn={topic}&Token=2",
        "https://{host}/?Action=ConfirmSubscription&TopicArn=arn:aws:sns:eu-west-1:999999999999:theirs&Token=2",
        "https://{host}/?Action=ConfirmSubscription&Action=DeleteTopic&TopicArn={topic}&Token=2",
        "https://{host}/x/?Action=ConfirmSubscription&TopicArn={topic}&Token=2",
    ],
)
def test_other_subscriptions_are_not_confirmed(platform: Platform, sns: SnsHost, url: str) -> None:
    put(platform, confirm=True)
    asked = sns.message("SubscriptionConfirmation", SubscribeURL=url.format(host=HOST, topic=TOPIC))
    assert post(platform, asked).status == 401
    assert not any("Action" in path for _, path in sns.asked)
    assert platform.events() == []


def test_if_sns_cannot_be_reached_the_sender_has_to_retry(platform: Platform, sns: SnsHost) -> None:
    put(platform, confirm=True)
    message = sns.message("SubscriptionConfirmation")
    sns.status = 500
    answer = post(platform, message)
    assert (answer.status, int(answer.headers["retry-after"]) > 0) == (503, True)
    assert platform.events() == []
    sns.status = 200
    assert post(platform, message).status == 200
