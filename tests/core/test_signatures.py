"""Tests the signatures of webhooks, with examples from specifications."""

from __future__ import annotations

import base64
import hmac
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks import Webhook

from stepwell.core.webhooks.senders import SENDERS, verify_of
from stepwell.core.webhooks.signatures import BadSecret, BadSignature, Signed, Verify, check_signature, places

AT = 1_614_265_330_000  # ms
STANDARD, STRIPE, GITHUB = (
    verify_of({"type": name, "secret": "NAME"}) for name in ("standard-webhooks", "stripe", "github")
)
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


def check(
    verify: Verify, secret: str | None, headers: Mapping[str, str], body: bytes, now: int = AT, url: str = ""
) -> None:
    check_signature(verify, secret, Signed(headers, body, url), now)


def hmac_of(algorithm: str = "sha256", encoding: str = "hex") -> Verify:
    return Verify("hmac", "NAME", "x-signature", algorithm, encoding)


# --- right signatures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verify", "secret", "headers", "body"),
    [
        # the test vector of the Standard Webhooks libraries
        (STANDARD, KEY, SIGNED, PING),
        (STANDARD, KEY.removeprefix("whsec_"), SIGNED, PING),
        (STANDARD, f" v1,{KEY}=\n", SIGNED, PING),
        # created with Stripe's Python library
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
def test_signatures_from_specifications_are_right(
    verify: Verify, secret: str, headers: Mapping[str, str], body: bytes
) -> None:
    check(verify, secret, headers, body, AT)


def test_signatures_of_the_standard_webhooks_library_are_right() -> None:
    secret = "whsec_" + base64.b64encode(b"\xff" * 24).decode()
    signature = Webhook(secret).sign("msg_ü", datetime.fromtimestamp(AT / 1000, UTC), "{}")
    headers = {"webhook-id": "msg_Ã¼", "webhook-timestamp": str(AT // 1000), "webhook-signature": signature}
    check(STANDARD, secret, headers, b"{}", AT)


def test_one_of_several_signatures_must_be_right() -> None:
    right, wrong = SIGNED["webhook-signature"], "v1,AAAA"
    check(STANDARD, KEY, {**SIGNED, "webhook-signature": f"v1a,x {wrong} {right}"}, PING, AT)
    with pytest.raises(BadSignature):
        check(STANDARD, KEY, {**SIGNED, "webhook-signature": f"{wrong} {wrong}"}, PING, AT)
    signature = by_stripe("s", CHARGE)
    check(STRIPE, "s", {"stripe-signature": f"t=1614265330, v1=00, v1={signature}"}, CHARGE, AT)
    check(hmac_of(), "s", {"x-signature": f"v1=00, v1={sha256('s', b'x')}"}, b"x", AT)


def test_the_header_may_have_another_name() -> None:
    headers = {name.replace("webhook", "svix"): value for name, value in SIGNED.items()}
    check(Verify("standard-webhooks", "NAME", "svix-signature"), KEY, headers, PING, AT)


# --- wrong signatures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [-301, 301, 10**9])
def test_a_signature_too_old_or_from_the_future_is_refused(seconds: int) -> None:
    with pytest.raises(BadSignature, match=r"too old|from the future"):
        check(STANDARD, KEY, SIGNED, PING, AT + seconds * 1000)
    signed = {"stripe-signature": f"t={AT // 1000},v1={by_stripe('s', CHARGE)}"}
    with pytest.raises(BadSignature, match=r"too old|from the future"):
        check(STRIPE, "s", signed, CHARGE, AT + seconds * 1000)


def test_the_tolerance_can_be_set() -> None:
    check(STANDARD, KEY, SIGNED, PING, AT + 300_000)
    patient = Verify("standard-webhooks", "NAME", "webhook-signature", tolerance_ms=3_600_000)
    check(patient, KEY, SIGNED, PING, AT + 3_600_000)


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
def test_other_signatures_are_wrong(verify: Verify, headers: Mapping[str, str]) -> None:
    with pytest.raises(BadSignature):
        check(verify, KEY, headers, PING, AT)


@pytest.mark.parametrize(
    ("verify", "secret"),
    [(STANDARD, None), (STANDARD, ""), (STANDARD, "whsec_"), (STANDARD, "no base64!"), (GITHUB, ""), (STRIPE, None)],
)
def test_an_invalid_secret_is_an_error_of_the_receiver_and_is_not_shown(verify: Verify, secret: str | None) -> None:
    headers = {**SIGNED, "stripe-signature": "t=1614265330,v1=00", "x-hub-signature-256": "sha256=00"}
    with pytest.raises(BadSecret) as bad:
        check(verify, secret, headers, PING, AT)
    assert not secret or secret.removeprefix("whsec_") == "" or secret not in str(bad.value)


# --- other senders ---------------------------------------------------------------------------------------------------

SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
    b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
    b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)
TWILIO_URL = "https://mycompany.com/myapp.php?foo=1&bar=2"
TWILIO_BODY = b"To=%2B18005551212&Digits=1234&From=%2B14158675309&Caller=%2B14158675309&CallSid=CA1234567890ABCDE"
TWILIO_FORM = {"content-type": "application/x-www-form-urlencoded; charset=UTF-8"}
TWILIO_JSON = b'{"property": "value", "boolean": true}'
TWILIO_HASH = "0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620"


def of(kind: str, **fields: Any) -> Verify:
    return verify_of({"type": kind, "secret": "NAME", **fields})


@pytest.mark.parametrize(
    ("verify", "secret", "headers", "body", "at", "url"),
    [
        # https://api.slack.com/authentication/verifying-requests-from-slack
        (
            of("slack"),
            "8f742231b10e8888abcd99yyyzzz85a5",
            {
                "x-slack-request-timestamp": "1531420618",
                "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
            },
            SLACK_BODY,
            1_531_420_618,
            "",
        ),
        # https://www.twilio.com/docs/usage/security#validating-requests, and the tests of Twilio's own libraries
        (
            of("twilio"),
            "12345",
            {"x-twilio-signature": "RSOYDt4T1cUTdK1PDd93/VVr8B8=", **TWILIO_FORM},
            TWILIO_BODY,
            0,
            TWILIO_URL,
        ),
        (
            of("twilio"),
            "12345",
            {"x-twilio-signature": "IK+Dwps556ElfBT0I3Rgjkr1wJU=", **TWILIO_FORM},
            b"Sid=CA123&SidAccount=AC123&Digits=5678&Digits=1234&Digits=1234",
            0,
            TWILIO_URL,
        ),
        (
            of("twilio"),
            "12345",
            {"x-twilio-signature": "a9nBmqA0ju/hNViExpshrM61xv4=", "content-type": "application/json"},
            TWILIO_JSON,
            0,
            f"{TWILIO_URL}&bodySHA256={TWILIO_HASH}",
        ),
        # https://developer.zendesk.com/documentation/webhooks/verifying/ (the order of the text, not of the example)
        (
            of("zendesk"),
            "HRkRd4BeOAoUkfZr-mhauJT64rvBASlJRoIyPsd3zeA=",
            {
                "x-zendesk-webhook-signature-timestamp": "2021-07-25T10:00:00Z",
                "x-zendesk-webhook-signature": "Rry/4TtIdFyawtXXp8QdI6tlAUUQ/5kL1OTp5qo/ZIk=",
            },
            b'{"say": "hello"}',
            1_627_207_200,
            "",
        ),
        (of("gitlab"), "t0ken", {"x-gitlab-token": "t0ken"}, b"{}", 0, ""),
        (of("telegram"), "t0ken", {"x-telegram-bot-api-secret-token": "t0ken"}, b"{}", 0, ""),
        (of("token"), "t0ken", {"authorization": "Bearer t0ken"}, b"{}", 0, ""),
        (of("token", header="X-Api-Key"), "t0ken", {"x-api-key": "t0ken"}, b"{}", 0, ""),
        (of("token", query="code"), "t+ken", {}, b"{}", 0, "https://a/webhooks/b?a=1&code=t%2Bken"),
    ],
)  # fmt: skip
def test_signatures_from_the_documentation_of_senders_are_right(
    verify: Verify, secret: str, headers: Mapping[str, str], body: bytes, at: int, url: str
) -> None:
    check(verify, secret, headers, body, at * 1000, url)
    with pytest.raises(BadSignature):
        check(verify, f"{secret}x", headers, body, at * 1000, url)
    with pytest.raises(BadSignature):
        check(verify, secret, dict.fromkeys(headers, ""), body, at * 1000, "")
    if verify.type not in ("token", "gitlab", "telegram"):
        with pytest.raises(BadSignature):
            check(verify, secret, headers, body + b"x", at * 1000, url)
    if verify.timestamp:
        with pytest.raises(BadSignature, match="too old"):
            check(verify, secret, headers, body, at * 1000 + 300_001, url)
    if verify.type == "twilio":
        with pytest.raises(BadSignature):
            check(verify, secret, headers, body, 0, url.replace("mycompany", "other"))
        check(verify, secret, headers, body, 0, url.replace("mycompany.com", "mycompany.com:443"))


def by_openssl(algorithm: str, key: str, content: bytes, encoding: str = "hex") -> str:
    command = ["openssl", "dgst", f"-{algorithm}", "-hmac", key, "-binary"]
    digest = subprocess.run(command, input=content, capture_output=True, check=True).stdout
    return digest.hex() if encoding == "hex" else base64.b64encode(digest).decode()


HEADERS = {"x-id": "7", "x-at": "1614265330", "x-ms": "1614265330123", "x-when": "2021-02-25T15:02:10Z"}
URL = "https://stepwell.example/webhooks/w?a=1"
BODY = b'{"n": 1, "t": "\xff"}'


SHOPIFY = {"type": "shopify", "header": "x-shopify-hmac-sha256"}
SQUARE = {"type": "square", "header": "x-square-hmacsha256-signature"}
INTERCOM = {"type": "intercom", "header": "x-hub-signature"}


def hmac_over(over: str, **fields: str) -> Any:
    return {"type": "hmac", "header": "X-S", "over": over, **fields}


@pytest.mark.parametrize(
    ("fields", "signed", "algorithm", "encoding", "form"),
    [
        (SHOPIFY, BODY, "sha256", "base64", "{}"),
        (SQUARE, URL.encode() + BODY, "sha256", "base64", "{}"),
        (INTERCOM, BODY, "sha1", "hex", "sha1={}"),
        (hmac_over("{{ts}}.{{body}}", timestamp="X-At"), b"1614265330." + BODY, "sha256", "hex", "{}"),
        (
            hmac_over("{{ts}}:{{body}}", timestamp="ts=", prefix="h1="),
            b"1614265330:" + BODY,
            "sha256",
            "hex",
            "ts=1614265330;h1={}",
        ),
        (hmac_over("{{ body }}{{ts}}", timestamp="x-ms"), BODY + b"1614265330123", "sha256", "hex", "{}"),
        (
            hmac_over("{{ts}}{{body}}", timestamp="x-when", algorithm="sha512"),
            b"2021-02-25T15:02:10Z" + BODY,
            "sha512",
            "hex",
            "{}",
        ),
        (
            hmac_over("{{method}}{{url}}{{body}}{{ts}}", timestamp="x-at", encoding="base64"),
            b"POST" + URL.encode() + BODY + b"1614265330",
            "sha256",
            "base64",
            "{}",
        ),
        (hmac_over("{{headers['X-Id']}}.{{body}}", prefix="v2="), b"7." + BODY, "sha256", "hex", "v1=00,v2={}"),
    ],
)
def test_any_hmac_can_be_configured(fields: Any, signed: bytes, algorithm: str, encoding: str, form: str) -> None:
    verify = verify_of({"secret": "NAME", **fields})
    headers = {**HEADERS, verify.header: form.format(by_openssl(algorithm, "hush", signed, encoding))}
    check(verify, "hush", headers, BODY, AT, URL)
    for wrong in ({"body": BODY + b" "}, {"secret": "hush2"}):
        with pytest.raises(BadSignature):
            check(verify, str(wrong.get("secret", "hush")), headers, bytes(wrong.get("body", BODY)), AT, URL)  # type: ignore[arg-type]
    if verify.timestamp:
        with pytest.raises(BadSignature):
            check(verify, "hush", headers, BODY, AT + 310_000, URL)


def test_a_template_with_an_unknown_name_is_refused() -> None:
    assert places("v0:{{ts}}:{{ body }}{{headers['a-b']}}") == ["ts", "body", "headers"]
    for wrong in ("{{", "{{x}}", "}}", "{{ts", "{{headers[a]}}", "{{body.id}}"):
        with pytest.raises(ValueError, match="are allowed in the signed text"):
            places(wrong)


def test_every_sender_has_a_header_or_a_certificate() -> None:
    for name, sender in SENDERS.items():
        assert "header" in sender.signs or name in ("hmac", "sns"), name
