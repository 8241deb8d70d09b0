"""Signatures of webhooks: what the specifications sign, and what nobody signed."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from stepwell.core.signatures import BadSecret, BadSignature, Verify, check_signature

AT = 1_614_265_330_000  # ms
STANDARD = Verify("standard-webhooks", "NAME", "webhook-signature")
STRIPE = Verify("stripe", "NAME", "stripe-signature")
GITHUB = Verify("github", "NAME", "x-hub-signature-256")
KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PING = b'{"test": 2432232314}'
SIGNED = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
BY_STRIPE = "0ea930768d1c5c7a7bdcb2ef97873516bb4cb0eb6d61a5f5915f4d0af759680d"
CHARGE = b'{"id":"evt_1","object":"event","type":"charge.succeeded"}'


def sha256(secret: str, content: bytes) -> str:
    return hmac.new(secret.encode(), content, "sha256").hexdigest()


def by_stripe(secret: str, body: bytes, seconds: int = AT // 1000) -> str:
    return sha256(secret, f"{seconds}.".encode() + body)


def hmac_of(algorithm: str = "sha256", encoding: str = "hex") -> Verify:
    return Verify("hmac", "NAME", "x-signature", algorithm, encoding)


# --- what is right ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verify", "secret", "headers", "body"),
    [
        # the vector of the libraries of Standard Webhooks
        (STANDARD, KEY, SIGNED, PING),
        (STANDARD, KEY.removeprefix("whsec_"), SIGNED, PING),
        (STANDARD, f" v1,{KEY}=\n", SIGNED, PING),
        # made by Stripe's own library for Python
        (
            STRIPE,
            "whsec_test_secret",
            {"stripe-signature": f"t=1614265330,v1={BY_STRIPE},v0={'6f' * 32}"},
            CHARGE,
        ),
        # https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries#testing-the-webhook-payload-validation
        (
            GITHUB,
            "It's a Secret to Everybody",
            {"x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"},
            b"Hello, World!",
        ),
        # RFC 4231, test case 2; RFC 2202, test case 2
        (
            hmac_of(),
            "Jefe",
            {"x-signature": "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
            b"what do ya want for nothing?",
        ),
        (
            hmac_of("sha1"),
            "Jefe",
            {"x-signature": "sha1=effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"},
            b"what do ya want for nothing?",
        ),
        (
            hmac_of("sha512"),
            "Jefe",
            {
                "x-signature": "164B7A7BFCF819E2E395FBE73B56E0A387BD64222E831FD610270CD7EA250554"
                "9758BF75C05A994A6D034F65F8F0E6FDCAEAB1A34D4A6B4B636E070A38BCE737"
            },
            b"what do ya want for nothing?",
        ),
        (
            hmac_of(encoding="base64"),
            "Jefe",
            {"x-signature": "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM="},
            b"what do ya want for nothing?",
        ),
    ],
)  # fmt: skip
def test_what_specifications_sign_is_right(
    verify: Verify, secret: str, headers: Mapping[str, str], body: bytes
) -> None:
    check_signature(verify, secret, headers, body, AT)


def test_the_library_of_standard_webhooks_signs_so() -> None:
    secret = "whsec_" + base64.b64encode(b"\xff" * 24).decode()
    signature = Webhook(secret).sign("msg_ü", datetime.fromtimestamp(AT / 1000, UTC), "{}")
    headers = {"webhook-id": "msg_Ã¼", "webhook-timestamp": str(AT // 1000), "webhook-signature": signature}
    check_signature(STANDARD, secret, headers, b"{}", AT)


def test_of_several_signatures_one_must_be_right() -> None:
    right, wrong = SIGNED["webhook-signature"], "v1,AAAA"
    check_signature(STANDARD, KEY, {**SIGNED, "webhook-signature": f"v1a,x {wrong} {right}"}, PING, AT)
    with pytest.raises(BadSignature):
        check_signature(STANDARD, KEY, {**SIGNED, "webhook-signature": f"{wrong} {wrong}"}, PING, AT)
    mine = by_stripe("s", CHARGE)
    check_signature(STRIPE, "s", {"stripe-signature": f"t=1614265330, v1=00, v1={mine}"}, CHARGE, AT)
    check_signature(hmac_of(), "s", {"x-signature": f"v1=00, v1={sha256('s', b'x')}"}, b"x", AT)


def test_the_header_may_have_another_name() -> None:
    headers = {name.replace("webhook", "svix"): value for name, value in SIGNED.items()}
    check_signature(Verify("standard-webhooks", "NAME", "svix-signature"), KEY, headers, PING, AT)


# --- what is wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [-301, 301, 10**9])
def test_what_is_too_old_or_from_the_future_is_refused(seconds: int) -> None:
    with pytest.raises(BadSignature, match=r"too old|from the future"):
        check_signature(STANDARD, KEY, SIGNED, PING, AT + seconds * 1000)
    signed = {"stripe-signature": f"t={AT // 1000},v1={by_stripe('s', CHARGE)}"}
    with pytest.raises(BadSignature, match=r"too old|from the future"):
        check_signature(STRIPE, "s", signed, CHARGE, AT + seconds * 1000)


def test_how_old_it_may_be_can_be_said() -> None:
    check_signature(STANDARD, KEY, SIGNED, PING, AT + 300_000)
    patient = Verify("standard-webhooks", "NAME", "webhook-signature", tolerance_ms=3_600_000)
    check_signature(patient, KEY, SIGNED, PING, AT + 3_600_000)


@pytest.mark.parametrize(
    ("verify", "headers"),
    [
        (STANDARD, {}),
        (STANDARD, {**SIGNED, "webhook-id": "msg_other"}),
        (STANDARD, {**SIGNED, "webhook-id": ""}),
        (STANDARD, {**SIGNED, "webhook-timestamp": "1614265331"}),
        (STANDARD, {**SIGNED, "webhook-timestamp": "1614265330.0"}),
        (STANDARD, {**SIGNED, "webhook-timestamp": "٣"}),
        (STANDARD, {**SIGNED, "webhook-timestamp": "9" * 5000}),
        (STANDARD, {**SIGNED, "webhook-signature": SIGNED["webhook-signature"].replace("v1,", "v2,")}),
        (STANDARD, {**SIGNED, "webhook-signature": "v1,"}),
        (STANDARD, {**SIGNED, "webhook-signature": "v1,\udcff"}),
        (STANDARD, {**SIGNED, "webhook-signature": "v1,AAAA " * 30 + SIGNED["webhook-signature"]}),
        (STRIPE, {}),
        (STRIPE, {"stripe-signature": "t=1614265330"}),
        (STRIPE, {"stripe-signature": f"v1={by_stripe(KEY, PING)}"}),
        (STRIPE, {"stripe-signature": f"t=1614265330,v0={by_stripe(KEY, PING)}"}),
        (STRIPE, {"stripe-signature": f"t=1614265329,t=1614265330,v1={by_stripe(KEY, PING)}"}),
        (STRIPE, {"stripe-signature": ",=,==,t"}),
        (GITHUB, {"x-hub-signature-256": sha256(KEY, PING)}),
        (GITHUB, {"x-hub-signature-256": "sha256="}),
        (GITHUB, {"x-hub-signature": f"sha256={sha256(KEY, PING)}"}),
        (hmac_of(), {"x-signature": ""}),
        (hmac_of("sha1"), {"x-signature": sha256(KEY, PING)}),
        (hmac_of(encoding="base64"), {"x-signature": sha256(KEY, PING)}),
    ],
)
def test_anything_else_is_wrong(verify: Verify, headers: Mapping[str, str]) -> None:
    with pytest.raises(BadSignature):
        check_signature(verify, KEY, headers, PING, AT)


@pytest.mark.parametrize(
    ("verify", "secret"),
    [(STANDARD, None), (STANDARD, ""), (STANDARD, "whsec_"), (STANDARD, "no base64!"), (GITHUB, ""), (STRIPE, None)],
)
def test_a_secret_that_is_none_is_the_receivers_fault_and_not_shown(verify: Verify, secret: str | None) -> None:
    headers = {**SIGNED, "stripe-signature": "t=1614265330,v1=00", "x-hub-signature-256": "sha256=00"}
    with pytest.raises(BadSecret) as bad:
        check_signature(verify, secret, headers, PING, AT)
    assert not secret or secret.removeprefix("whsec_") == "" or secret not in str(bad.value)
