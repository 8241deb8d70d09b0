"""Messages of Amazon SNS: what of them is signed, and which addresses in them may be asked.

https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html

One rule: a message says where its certificate is, and anybody can write a message; so what is fetched is fetched from
SNS's own hosts, by https, and of the topic's own region.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

from stepwell.core.webhooks.rsa import PublicKey, is_signed
from stepwell.core.webhooks.signatures import BadSignature, Verify, check_time

_ALGORITHMS = {"1": "sha1", "2": "sha256"}
_NOTIFICATION = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_CONFIRMATION = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_SIGNED = {
    "Notification": _NOTIFICATION,
    "SubscriptionConfirmation": _CONFIRMATION,
    "UnsubscribeConfirmation": _CONFIRMATION,
}
# A region, and nothing that S3 or another service lets its customers name: sns.s3-us-west-2.amazonaws.com is a bucket.
_REGION = r"[a-z]{2}(?:-[a-z]+){1,3}-[0-9]{1,2}"
_HOST = rf"https://sns\.(?P<region>{_REGION})\.amazonaws\.com(?:\.cn)?"
_CERTIFICATE = re.compile(rf"{_HOST}/SimpleNotificationService-[0-9a-f]{{1,64}}\.pem")
_SUBSCRIBE = re.compile(rf"{_HOST}/\?[A-Za-z0-9=&%:_.+-]{{1,2000}}")
_TOPIC = re.compile(rf"arn:aws(?:-[a-z]+)*:sns:(?P<region>{_REGION}):[0-9]{{12}}:[A-Za-z0-9_.-]{{1,260}}")

Json = dict[str, Any]


def certificate_url(message: Any) -> str:
    """Where the certificate is that a message is signed with. Raises BadSignature unless that is SNS's own host."""
    topic = _TOPIC.fullmatch(_text(message, "TopicArn"))
    if topic is None:
        raise BadSignature("the message names no topic as SNS has them")
    url = _text(message, "SigningCertURL")
    found = _CERTIFICATE.fullmatch(url)
    if found is None or found["region"] != topic["region"]:
        raise BadSignature("the certificate is not at sns.<the topic's region>.amazonaws.com, so it is not looked at")
    return url


def check_message(verify: Verify, message: Any, key: PublicKey, now: int) -> None:
    """Raises BadSignature unless SNS signed it for one of the topics that may send, not long ago."""
    fields = _SIGNED.get(_text(message, "Type"))
    if fields is None:
        raise BadSignature("the message's Type is none that SNS has")
    algorithm = _ALGORITHMS.get(_text(message, "SignatureVersion"))
    if algorithm is None:
        raise BadSignature("the message's SignatureVersion is neither 1 nor 2")
    try:
        signature = base64.b64decode(_text(message, "Signature"), validate=True)
    except (binascii.Error, ValueError):
        raise BadSignature("the message's Signature is not base64") from None
    lines = [f"{name}\n{_text(message, name)}\n" for name in fields if name != "Subject" or message.get(name)]
    if not is_signed(key, algorithm, "".join(lines).encode("utf-8", "surrogatepass"), signature):
        raise BadSignature("the signature is not right: a message that was changed on the way?")
    check_time(message["Timestamp"], verify.tolerance_ms, now)
    if verify.topics and not any(_is_topic(message["TopicArn"], topic) for topic in verify.topics):
        raise BadSignature("the message is of a topic that may not send here; add it to `topics`")


def confirmation_url(verify: Verify, message: Json) -> str | None:
    """Where the subscription is confirmed that a message, which was checked, asks for; None if it asks for none, or
    the rule does not say that it is."""
    if not verify.confirm or message.get("Type") != "SubscriptionConfirmation":
        return None
    url, topic = _text(message, "SubscribeURL"), _TOPIC.fullmatch(message["TopicArn"])
    found = _SUBSCRIBE.fullmatch(url)
    if found is None or topic is None or found["region"] != topic["region"]:
        raise BadSignature("the subscription is not confirmed at sns.<the topic's region>.amazonaws.com")
    asked = parse_qs(urlsplit(url).query)
    if asked.get("Action") != ["ConfirmSubscription"] or asked.get("TopicArn") != [message["TopicArn"]]:
        raise BadSignature("what the message would have confirmed is no subscription to its topic")
    return url


def _is_topic(arn: str, pattern: str) -> bool:
    return arn.startswith(pattern[:-1]) if pattern.endswith("*") else arn == pattern


def _text(message: Any, name: str) -> str:
    value = message.get(name) if isinstance(message, dict) else None
    if not isinstance(value, str):
        raise BadSignature(f"the body is no message of SNS: it has no {name}")
    return value
