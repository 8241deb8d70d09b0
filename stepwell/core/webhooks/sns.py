"""Checks messages of Amazon SNS: the signature, and the addresses in a message that may be requested.

https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html

A message contains the address of a certificate, and anyone can write a message. So Stepwell sends requests only to the
hosts of SNS, with https, in the region of the topic.
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
# Only a region: customers of S3 can choose other names. For example, sns.s3-us-west-2.amazonaws.com is a bucket.
_REGION = r"[a-z]{2}(?:-[a-z]+){1,3}-[0-9]{1,2}"
_HOST = rf"https://sns\.(?P<region>{_REGION})\.amazonaws\.com(?:\.cn)?"
_CERTIFICATE = re.compile(rf"{_HOST}/SimpleNotificationService-[0-9a-f]{{1,64}}\.pem")
_SUBSCRIBE = re.compile(rf"{_HOST}/\?[A-Za-z0-9=&%:_.+-]{{1,2000}}")
_TOPIC = re.compile(rf"arn:aws(?:-[a-z]+)*:sns:(?P<region>{_REGION}):[0-9]{{12}}:[A-Za-z0-9_.-]{{1,260}}")

Json = dict[str, Any]


def certificate_url(message: Any) -> str:
    """The address of the certificate that signed a message. Raises BadSignature if it is not a host of SNS."""
    topic = _TOPIC.fullmatch(_text(message, "TopicArn"))
    if topic is None:
        raise BadSignature("the TopicArn of the message is not the ARN of an SNS topic")
    url = _text(message, "SigningCertURL")
    found = _CERTIFICATE.fullmatch(url)
    if found is None or found["region"] != topic["region"]:
        raise BadSignature("SigningCertURL is not at sns.<the topic's region>.amazonaws.com")
    return url


def check_message(verify: Verify, message: Any, key: PublicKey, now: int) -> None:
    """Raises BadSignature if SNS did not sign the message, if it is too old, or if the topic may not send."""
    fields = _SIGNED.get(_text(message, "Type"))
    if fields is None:
        raise BadSignature("the Type of the message is unknown")
    algorithm = _ALGORITHMS.get(_text(message, "SignatureVersion"))
    if algorithm is None:
        raise BadSignature("the SignatureVersion of the message is not 1 or 2")
    try:
        signature = base64.b64decode(_text(message, "Signature"), validate=True)
    except (binascii.Error, ValueError):
        raise BadSignature("the Signature of the message is not base64") from None
    lines = [f"{name}\n{_text(message, name)}\n" for name in fields if name != "Subject" or message.get(name)]
    if not is_signed(key, algorithm, "".join(lines).encode("utf-8", "surrogatepass"), signature):
        raise BadSignature("the signature is wrong; check that no proxy changes the message")
    check_time(message["Timestamp"], verify.tolerance_ms, now)
    if verify.topics and not any(_is_topic(message["TopicArn"], topic) for topic in verify.topics):
        raise BadSignature("the topic of the message may not send here; add it to `topics`")


def confirmation_url(verify: Verify, message: Json) -> str | None:
    """The address that confirms the subscription requested by a message, which must be checked before.

    None if the message requests no subscription, or the rule does not allow it. Raises BadSignature.
    """
    if not verify.confirm or message.get("Type") != "SubscriptionConfirmation":
        return None
    url, topic = _text(message, "SubscribeURL"), _TOPIC.fullmatch(message["TopicArn"])
    found = _SUBSCRIBE.fullmatch(url)
    if found is None or topic is None or found["region"] != topic["region"]:
        raise BadSignature("SubscribeURL is not at sns.<the topic's region>.amazonaws.com")
    query = parse_qs(urlsplit(url).query)
    if query.get("Action") != ["ConfirmSubscription"] or query.get("TopicArn") != [message["TopicArn"]]:
        raise BadSignature("SubscribeURL does not confirm a subscription to the topic of the message")
    return url


def _is_topic(arn: str, pattern: str) -> bool:
    return arn.startswith(pattern[:-1]) if pattern.endswith("*") else arn == pattern


def _text(message: Any, name: str) -> str:
    value = message.get(name) if isinstance(message, dict) else None
    if not isinstance(value, str):
        raise BadSignature(f"the body is not an SNS message: it has no {name}")
    return value
