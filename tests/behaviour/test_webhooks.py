"""`POST /webhooks/{name}`: stored rules turn requests of any sender into events."""

from __future__ import annotations

import base64
import hmac
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from standardwebhooks import Webhook

from tests.behaviour.words import START, Answer, Json, Platform, Refused, function

SECRET = "It's a Secret to Everybody"
FORM = "application/x-www-form-urlencoded"
GITHUB: Json = {
    "event": "github/{{ headers['x-github-event'] }}",
    "user": "body.sender.login",
    "verify": {"type": "github", "secret": "GITHUB_SECRET"},
}
PUSH: Json = {"ref": "refs/heads/main", "sender": {"login": "ada"}, "commits": [{"id": "1"}]}
SECONDS = round(START.timestamp())


def put(platform: Platform, webhook: str, /, **rule: Any) -> Json:
    fields: Json = platform.api("PUT", f"/v1/webhooks/{webhook}", {"event": "hook", **rule})
    return fields


def post(platform: Platform, name: str, content: Any = b"", content_type: str = "", **headers: str) -> Answer:
    """Makes a request as a sender without a key does."""
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    fields = {"content-type": content_type or "application/json", "authorization": "none"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    return platform.http("POST", f"/webhooks/{name}", body, fields)


def event_made(platform: Platform, answer: Answer) -> Json:
    """The event that a request became."""
    (event_id,) = answer.json()["ids"]
    return platform.event(event_id)


def refused(answer: Answer, status: int) -> Json:
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json"), answer.body
    return dict(orjson.loads(answer.body))


def github_headers(body: bytes, secret: str = SECRET) -> dict[str, str]:
    digest = hmac.new(secret.encode(), body, "sha256").hexdigest()
    return {"x_hub_signature_256": f"sha256={digest}", "x_github_event": "push", "x_github_delivery": "d-1"}


def stripe_headers(body: bytes, secret: str, at: int = SECONDS) -> dict[str, str]:
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, "sha256").hexdigest()
    return {"stripe_signature": f"t={at},v1={'0' * 64},v1={digest}"}


# --- rules -----------------------------------------------------------------------------------------------------------


def test_a_signed_request_starts_the_function_that_its_event_names(platform: Platform) -> None:
    platform.secret("GITHUB_SECRET", SECRET)
    platform.deploy(function(on="github/push"))
    put(platform, "github", **GITHUB)
    body = orjson.dumps(PUSH)
    answer = post(platform, "github", body, **github_headers(body))
    event = event_made(platform, answer)
    assert answer.json() == {"ids": ["webhook:github:d-1"], "status": 200}
    assert (event["name"], event["data"], event["user"]) == ("github/push", PUSH, {"external_id": "ada"})
    assert [run["status"] for run in platform.runs(event["id"])] == ["completed"]


def test_every_field_can_be_an_expression(platform: Platform) -> None:
    put(
        platform,
        "shop",
        event="{{ query.shop }}/{{ body.kind }}.{{ size(body.items) }}",
        id="body.number",
        data="{'items': body.items.map(i, i.sku), 'agent': headers['user-agent']}",
        user="{'email': body.mail, 'plan': 'pro'}",
        ts="body.at * 1000",
        **{"if": "body.kind != 'test'"},
    )
    sent = {"kind": "order", "number": 7, "items": [{"sku": "a"}, {"sku": "b"}], "mail": "a@b.c", "at": 1_780_000_000}
    event = event_made(platform, post(platform, "shop?shop=north", sent, user_agent="shop/1"))
    assert {field: event[field] for field in ("id", "name", "data", "user", "ts")} == {
        "id": "webhook:shop:7",
        "name": "north/order.2",
        "data": {"items": ["a", "b"], "agent": "shop/1"},
        "user": {"email": "a@b.c", "plan": "pro"},
        "ts": 1_780_000_000_000,
    }


def test_a_request_whose_if_is_false_is_answered_and_ignored(platform: Platform) -> None:
    put(platform, "some", **{"if": "body.kind == 'order'"})
    assert post(platform, "some", {"kind": "test"}).json() == {"ids": [], "status": 200}
    assert platform.events() == []
    assert post(platform, "some", {"kind": "order"}).json()["ids"] != []


BODIES: list[tuple[bytes, str, Json]] = [
    (b'{"a": 1}', "application/json; charset=utf-8", {"a": 1}),
    (b'{"a": 1}', "application/vnd.github+json", {"a": 1}),
    (b'{"a": 1}', "application/vnd.api+json", {"a": 1}),
    (b'{"a": 1}', "application/cloudevents+json; charset=utf-8", {"a": 1}),
    (b'{"a": 1}', "text/json", {"a": 1}),
    (b" \r\n[1, 2]\n", "text/plain; charset=UTF-8", {"value": [1, 2]}),
    (b'{"a": 1}', "application/octet-stream", {"a": 1}),
    (b'\xef\xbb\xbf{"a": "\xc3\xa9"}', "application/json", {"a": "\u00e9"}),
    (b'\xef\xbb\xbf{"a": 1}', "text/plain", {"a": 1}),
    (b"\xef\xbb\xbfhello", "text/plain", {"value": "hello"}),
    (b'{"a": "\xe9"}', "application/json; charset=latin-1", {"a": "\u00e9"}),
    ('{"a": "\u00e9"}'.encode("utf-16"), "application/json; charset=utf-16", {"a": "\u00e9"}),
    (b"{no JSON}", "text/plain", {"value": "{no JSON}"}),
    (b"5", "text/plain", {"value": "5"}),
    (b'{"a": 1}', FORM, {'{"a": 1}': ""}),
    (b"[1]", "application/json", {"value": [1]}),
    (b"null", "application/json", {}),
    (b"", "application/json", {}),
    (b"a=1&b=%C3%A9&b=+&c=", FORM, {"a": "1", "b": ["é", " "], "c": ""}),
    (b"", FORM, {}),
    ("é".encode(), "text/plain", {"value": "é"}),
    ("é".encode("latin-1"), 'text/plain; charset="ISO-8859-1"', {"value": "é"}),
    (b"<a/>", "application/xml", {"value": "<a/>"}),
]


def test_a_body_can_be_json_a_form_or_text(platform: Platform) -> None:
    put(platform, "any")
    for body, content_type, data in BODIES:
        assert event_made(platform, post(platform, "any", body, content_type))["data"] == data, (body, content_type)


def test_ts_and_user_can_be_texts_and_null_means_unset(platform: Platform) -> None:
    put(platform, "texts", ts="body.at", user="body.who", id="body.id")
    event = event_made(platform, post(platform, "texts", {"at": "2026-06-01T12:00:00+02:00", "who": 7, "id": "x"}))
    assert (event["ts"], event["user"]) == (1_780_308_000_000, {"external_id": 7})
    event = event_made(platform, post(platform, "texts", {"at": None, "who": None, "id": None}))
    assert (event["ts"], event["user"]) == (SECONDS * 1000, {})


def test_json_that_is_sent_as_text_is_parsed(platform: Platform) -> None:
    put(platform, "sns", event="sns/{{ body.Type }}", id="body.MessageId", data="{'subject': body.Subject}")
    sent = {"Type": "Notification", "MessageId": "m-1", "Subject": "bounce", "Message": '{"mail":1}'}
    for kind in ("text/plain; charset=UTF-8", "application/octet-stream", "TEXT/PLAIN"):
        event = event_made(platform, post(platform, "sns", sent, kind))
        assert (event["name"], event["id"], event["data"]) == (
            "sns/Notification",
            "webhook:sns:m-1",
            {"subject": "bounce"},
        )


def test_json_in_a_form_field_is_parsed_if_the_rule_uses_its_fields(platform: Platform) -> None:
    put(platform, "slack", data="{'user': body.payload.user.id, 'all': body.payload, 'other': body.other}")
    form = urlencode({"payload": '{"user": {"id": "U1"}}', "other": '{"a": 1}'}).encode()
    event = event_made(platform, post(platform, "slack", form, FORM))
    assert event["data"] == {"user": "U1", "all": {"user": {"id": "U1"}}, "other": '{"a": 1}'}
    for text in ("no JSON", "{", "5", '"text"'):
        refused(post(platform, "slack", urlencode({"payload": text, "other": ""}).encode(), FORM), 422)
    put(platform, "texts", data="{'text': body.Body}")
    event = event_made(platform, post(platform, "texts", urlencode({"Body": '{"a": 1}'}).encode(), FORM))
    assert event["data"] == {"text": '{"a": 1}'}, "the rule decides, not the sender"


def test_a_rule_can_parse_json_in_any_text(platform: Platform) -> None:
    put(
        platform,
        "texts",
        event="{{ parse_json(body.Message).kind }}",
        data="{'n': parse_json(parse_json(body.Message).inner).n, 'q': parse_json(query.q)[0],"
        " 'h': parse_json(headers['x-h'])}",
        **{"if": "parse_json(body.Message).kind != 'test'"},
    )
    message = json.dumps({"kind": "bounced", "inner": '{"n": null}'})
    event = event_made(platform, post(platform, 'texts?q=%5B"a"%5D', {"Message": message}, x_h="7"))
    assert (event["name"], event["data"]) == ("bounced", {"n": None, "q": "a", "h": 7})
    assert post(platform, "texts", {"Message": '{"kind": "test"}'}).json()["ids"] == []
    (error,) = refused(post(platform, "texts", {"Message": "hello"}), 422)["errors"]
    assert "parse_json: the text is not JSON" in error["message"]
    for depth, status in ((120, 200), (200, 422)):
        put(platform, "deep", data="{'a': parse_json(body.a)}")
        assert post(platform, "deep", {"a": "[" * depth + "]" * depth}).status == status


def test_a_rule_can_set_the_type_of_the_body(platform: Platform) -> None:
    for reading in ("json", "form", "text"):
        put(platform, reading, body=reading)
    for kind in (FORM, "text/plain", "application/json"):
        assert event_made(platform, post(platform, "json", b'{"a": 1}', kind))["data"] == {"a": 1}
        assert event_made(platform, post(platform, "form", b"a=1", kind))["data"] == {"a": "1"}
        assert event_made(platform, post(platform, "text", b'{"a": 1}', kind))["data"] == {"value": '{"a": 1}'}
        assert "is not JSON" in refused(post(platform, "json", b"a=1", kind), 400)["detail"]


def test_the_fields_of_a_multipart_form_are_read_and_its_files_are_described(platform: Platform) -> None:
    put(platform, "form", data="{'all': body, 'id': body.event.id}")
    parts = [
        b'Content-Disposition: form-data; name="event"\r\nContent-Type: application/json\r\n\r\n{"id": 7}',
        b'content-disposition: form-data; name="a \\"b\\""\r\n\r\nline 1\r\nline 2\r\n',
        b'Content-Disposition: form-data; name="e"\r\n\r\n\xc3\xa9',
        b'Content-Disposition: form-data; name="e"\r\n\r\n',
        b'Content-Disposition: form-data; name="f"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n\x89PNG\xff',
    ]
    body = b"".join(b"--x.y\r\n%b\r\n" % part for part in parts) + b"--x.y--\r\n"
    event = event_made(platform, post(platform, "form", body, 'multipart/form-data; boundary="x.y"'))
    assert event["data"] == {
        "all": {
            "event": {"id": 7},
            'a "b"': "line 1\r\nline 2\r\n",
            "e": ["\u00e9", ""],
            "f": {"filename": "a.png", "content_type": "image/png", "size": 5},
        },
        "id": 7,
    }
    for wrong in (body[:-9], b"", body.replace(b'name="event"', b"x")):
        assert post(platform, "form", wrong, "multipart/form-data; boundary=x.y").status in (400, 422)
    refused(post(platform, "form", body, "multipart/form-data"), 400)


# --- signatures ------------------------------------------------------------------------------------------------------


def test_standard_webhooks_of_an_unmodified_sender_are_accepted(platform: Platform) -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    platform.secret("KEY", secret)
    put(platform, "std", event="{{ body.type }}", verify={"type": "standard-webhooks", "secret": "KEY"})
    body = '{"type": "user.created"}'
    signature = Webhook(secret).sign("msg_1", datetime.fromtimestamp(SECONDS, UTC), body)
    signed = {"webhook_id": "msg_1", "webhook_timestamp": str(SECONDS), "webhook_signature": f"v1,AAAA {signature}"}
    answer = post(platform, "std", body.encode(), **signed)
    assert (event_made(platform, answer)["name"], answer.json()["ids"]) == ("user.created", ["webhook:std:msg_1"])
    refused(post(platform, "std", body.encode(), **{**signed, "webhook_id": "msg_2"}), 401)
    platform.travel("6m")
    assert "too old" in refused(post(platform, "std", body.encode(), **signed), 401)["detail"]


def test_events_of_stripe_are_accepted_once(platform: Platform) -> None:
    platform.secret("STRIPE", "whsec_test_secret")
    verify = {"type": "stripe", "secret": "STRIPE", "tolerance": "1h"}
    put(platform, "stripe", event="stripe/{{ body.type }}", ts="body.created * 1000", verify=verify)
    body = orjson.dumps({"id": "evt_1", "type": "charge.succeeded", "created": SECONDS - 60})
    first = post(platform, "stripe", body, **stripe_headers(body, "whsec_test_secret"))
    assert (event_made(platform, first)["name"], first.json()["ids"]) == (
        "stripe/charge.succeeded",
        ["webhook:stripe:evt_1"],
    )
    platform.travel("50m")
    again = post(platform, "stripe", body, **stripe_headers(body, "whsec_test_secret", SECONDS + 3000))
    assert again.json() == first.json()
    assert len(platform.events("stripe/charge.succeeded")) == 1
    platform.travel("11m")
    refused(post(platform, "stripe", body, **stripe_headers(body, "whsec_test_secret")), 401)


def test_any_hmac_of_the_body_can_be_checked(platform: Platform) -> None:
    platform.secret("SHOP", "hush")
    verify = {"type": "hmac", "secret": "SHOP", "header": "X-Shop-Hmac", "algorithm": "sha512", "encoding": "base64"}
    put(platform, "shop", verify=verify)
    body = b"<order/>"
    signature = base64.b64encode(hmac.digest(b"hush", body, "sha512")).decode()
    assert event_made(platform, post(platform, "shop", body, "text/xml", x_shop_hmac=signature))["data"] == {
        "value": "<order/>"
    }
    refused(post(platform, "shop", body + b" ", "text/xml", x_shop_hmac=signature), 401)


def test_slacks_signature_covers_the_time_and_the_raw_form(platform: Platform) -> None:
    platform.secret("SLACK", "8f742231b10e8888abcd99yyyzzz85a5")
    put(platform, "slack", verify={"type": "slack", "secret": "SLACK"}, data="{'user': body.payload.user.id}")
    body = urlencode({"payload": '{"user": {"id": "U1"}}'}).encode()

    def signed(at: int, of: bytes = body) -> dict[str, str]:
        digest = hmac.new(b"8f742231b10e8888abcd99yyyzzz85a5", b"v0:%d:%b" % (at, of), "sha256").hexdigest()
        return {"x_slack_request_timestamp": str(at), "x_slack_signature": f"v0={digest}"}

    assert event_made(platform, post(platform, "slack", body, FORM, **signed(SECONDS)))["data"] == {"user": "U1"}
    refused(post(platform, "slack", body, FORM, **signed(SECONDS - 301)), 401)
    refused(post(platform, "slack", body, FORM, **signed(SECONDS, body + b" ")), 401)
    refused(post(platform, "slack", body, FORM, **{**signed(SECONDS), "x_slack_request_timestamp": "x"}), 401)


def test_twilios_signature_covers_the_url(platform: Platform) -> None:
    platform.secret("TWILIO", "12345")
    url = "https://mycompany.com/myapp.php"
    put(platform, "sms", verify={"type": "twilio", "secret": "TWILIO", "url": url})
    body = b"Digits=1234&To=%2B18005551212&From=%2B14158675309&Caller=%2B14158675309&CallSid=CA1234567890ABCDE"
    signature = "RSOYDt4T1cUTdK1PDd93/VVr8B8="  # from Twilio's documentation
    event = event_made(platform, post(platform, "sms?foo=1&bar=2", body, FORM, x_twilio_signature=signature))
    assert event["data"]["From"] == "+14158675309"
    refused(post(platform, "sms?foo=1&bar=3", body, FORM, x_twilio_signature=signature), 401)
    refused(post(platform, "sms?foo=1&bar=2", body + b"&a=1", FORM, x_twilio_signature=signature), 401)


@pytest.mark.parametrize(
    ("verify", "header"),
    [
        ({"type": "gitlab"}, "x_gitlab_token"),
        ({"type": "telegram"}, "x_telegram_bot_api_secret_token"),
        ({"type": "token", "header": "X-Api-Key"}, "x_api_key"),
    ],
)
def test_a_token_must_be_the_secret(platform: Platform, verify: Json, header: str) -> None:
    platform.secret("TOKEN", "t0ken")
    put(platform, "w", verify={**verify, "secret": "TOKEN"})
    assert event_made(platform, post(platform, "w", {"a": 1}, **{header: "t0ken"}))["data"] == {"a": 1}
    for wrong in ("t0ke", "T0KEN", "t0ken ken", "Bearer t0ken", ""):
        assert "t0ken" not in refused(post(platform, "w", {}, **{header: wrong}), 401)["detail"]
    refused(post(platform, "w", {}), 401)


def test_a_token_can_be_in_the_query(platform: Platform) -> None:
    platform.secret("TOKEN", "t0ken")
    put(platform, "w", verify={"type": "token", "query": "code", "secret": "TOKEN"})
    assert event_made(platform, post(platform, "w?a=1&code=t0ken", {"a": 1}))["data"] == {"a": 1}
    for wrong in ("w?code=x", "w?code=", "w", "w?code=x&code=t0ken"):
        refused(post(platform, wrong, {}), 401)


@pytest.mark.parametrize("change", ["body", "secret", "missing", "empty", "garbage"])
def test_a_wrong_signature_is_refused_and_nothing_is_accepted(platform: Platform, change: str) -> None:
    platform.secret("GITHUB_SECRET", SECRET)
    put(platform, "github", **GITHUB)
    body = orjson.dumps(PUSH)
    headers = github_headers(body, "other" if change == "secret" else SECRET)
    if change == "missing":
        headers.pop("x_hub_signature_256")
    elif change in ("empty", "garbage"):
        headers["x_hub_signature_256"] = {"empty": "", "garbage": "sha256=\x7f,,=\t"}[change]
    answer = post(platform, "github", body + b" " if change == "body" else body, **headers)
    assert SECRET not in refused(answer, 401)["detail"]
    assert platform.events() == []


def test_a_missing_secret_gets_a_503_and_the_log_names_it(platform: Platform, caplog: pytest.LogCaptureFixture) -> None:
    put(platform, "github", **GITHUB)
    body = orjson.dumps(PUSH)
    answer = post(platform, "github", body, **github_headers(body))
    assert "GITHUB_SECRET" not in refused(answer, 503)["detail"]
    assert int(answer.headers["retry-after"]) > 0
    (text,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "secret GITHUB_SECRET: it is not set" in text
    platform.secret("GITHUB_SECRET", SECRET)
    assert event_made(platform, post(platform, "github", body, **github_headers(body)))["data"] == PUSH


# --- challenges ------------------------------------------------------------------------------------------------------


def get(platform: Platform, path: str, method: str = "GET") -> Answer:
    return platform.http(method, f"/webhooks/{path}", headers={"authorization": "none"})


def answer_parts(answer: Answer) -> tuple[int, str, str, bytes]:
    return answer.status, answer.headers["content-type"], answer.headers["x-content-type-options"], answer.body


PLAIN = (200, "text/plain; charset=utf-8", "nosniff")


def test_slacks_challenge_is_answered_and_makes_no_event(platform: Platform) -> None:
    platform.secret("SLACK", "hush")
    challenge = {"if": "body.type == 'url_verification'", "answer": "body.challenge"}
    put(
        platform,
        "slack",
        event="slack/{{ body.type }}",
        verify={"type": "slack", "secret": "SLACK"},
        challenge=challenge,
    )

    def send(sent: Json, key: bytes = b"hush") -> Answer:
        body = orjson.dumps(sent)
        digest = hmac.new(key, b"v0:%d:%b" % (SECONDS, body), "sha256").hexdigest()
        headers = {"x_slack_request_timestamp": str(SECONDS), "x_slack_signature": f"v0={digest}"}
        return post(platform, "slack", body, **headers)

    sent = {"token": "x", "challenge": "3eZbrw1a<script>", "type": "url_verification"}
    assert answer_parts(send(sent)) == (*PLAIN, b"3eZbrw1a<script>")
    refused(send(sent, b"other"), 401)
    assert platform.events() == []
    assert event_made(platform, send({"type": "event_callback", "challenge": "x"}))["name"] == "slack/event_callback"


def test_metas_challenge_is_answered_if_the_token_is_right(platform: Platform) -> None:
    platform.secret("META", "t0ken")
    token = {"query": "hub.verify_token", "secret": "META"}
    put(platform, "meta", challenge={"answer": "query['hub.challenge']", "token": token})
    asked = "hub.mode=subscribe&hub.challenge=1158201444"
    assert answer_parts(get(platform, f"meta?{asked}&hub.verify_token=t0ken")) == (*PLAIN, b"1158201444")
    for wrong in (
        f"{asked}&hub.verify_token=other",
        asked,
        f"{asked}&hub.verify_token=",
        f"{asked}&hub.verify_token=t0ken&hub.verify_token=t0ken",
    ):
        answer = get(platform, f"meta?{wrong}")
        refused(answer, 403)
        assert b"1158201444" not in answer.body
    assert get(platform, "meta").status == 200


def test_a_missing_token_of_a_challenge_gets_a_503(platform: Platform) -> None:
    put(platform, "meta", challenge={"answer": "query.c", "token": {"query": "t", "secret": "META"}})
    refused(get(platform, "meta?c=1&t="), 503)


def test_a_challenge_is_echoed_as_plain_text_of_bounded_length(platform: Platform) -> None:
    put(platform, "dropbox", challenge={"answer": "query.challenge"})
    assert answer_parts(get(platform, "dropbox?challenge=%3Cb%3E%C3%A9")) == (*PLAIN, "<b>\u00e9".encode())
    assert answer_parts(get(platform, f"dropbox?challenge={'x' * 1024}"))[3] == b"x" * 1024
    refused(get(platform, f"dropbox?challenge={'x' * 1025}"), 422)
    refused(get(platform, "dropbox?challenge=a&challenge=b"), 422)
    assert get(platform, "dropbox").json() == {"ids": [], "status": 200}
    assert get(platform, "dropbox?challenge=x", "HEAD").body == b""


def test_only_zooms_challenge_is_signed(platform: Platform) -> None:
    platform.secret("ZOOM", "hush")
    challenge = {
        "if": "body.event == 'endpoint.url_validation'",
        "sign": "body.payload.plainToken",
        "answer": "{'plainToken': body.payload.plainToken, 'encryptedToken': signature}",
    }
    put(platform, "zoom", verify={"type": "zoom", "secret": "ZOOM"}, challenge=challenge)

    def send(token: str, key: bytes = b"hush") -> Answer:
        body = orjson.dumps({"event": "endpoint.url_validation", "payload": {"plainToken": token}})
        digest = hmac.new(key, b"v0:%d:%b" % (SECONDS, body), "sha256").hexdigest()
        return post(platform, "zoom", body, x_zm_request_timestamp=str(SECONDS), x_zm_signature=f"v0={digest}")

    answer = send("qgg8vlvZRS6UYooatFL8Aw")
    encrypted = hmac.new(b"hush", b"qgg8vlvZRS6UYooatFL8Aw", "sha256").hexdigest()
    assert answer.json() == {"plainToken": "qgg8vlvZRS6UYooatFL8Aw", "encryptedToken": encrypted}
    refused(send("qgg8vlvZRS6UYooatFL8Aw", b"other"), 401)
    for token in ("v0:1:{}", '{"event":"x"}', "", "x" * 129):
        refused(send(token), 422)
    put(
        platform,
        "open",
        verify={"type": "zoom", "secret": "ZOOM"},
        challenge={"sign": "query.token", "answer": "signature"},
    )
    assert get(platform, "open?token=abc").json() == {"ids": [], "status": 200}, (
        "a sender who does not sign gets no signature"
    )


def test_requests_that_check_whether_a_webhook_exists_are_answered(platform: Platform) -> None:
    put(platform, "w", verify={"type": "github", "secret": "NONE"})
    for method in ("GET", "HEAD"):
        answer = get(platform, "w?hub.challenge=%3Cscript%3E", method)
        assert answer.status == 200
        assert b"script" not in answer.body
        assert get(platform, "none", method).status == 404
    assert platform.events() == []


# --- duplicates ------------------------------------------------------------------------------------------------------


def test_a_repeated_delivery_makes_no_second_event(platform: Platform) -> None:
    platform.deploy(function(on="hook"))
    for name in ("one", "two"):
        put(platform, name)
    sent = [
        post(platform, name, {"n": 1}, **{header: "7"}).json()["ids"][0]
        for header in ("webhook_id", "x_github_delivery")
        for name in ("one", "one", "two")
    ]
    assert sent == ["webhook:one:7", "webhook:one:7", "webhook:two:7"] * 2
    assert len(platform.events("hook")) == len(platform.runs()) == 2


def test_the_id_of_the_rule_overrides_the_id_of_the_delivery(platform: Platform) -> None:
    put(platform, "orders", id="body.order")
    ids = [post(platform, "orders", {"order": "x"}, webhook_id=n).json()["ids"] for n in "12"]
    assert ids == [["webhook:orders:x"]] * 2


def test_without_any_id_every_request_is_an_event(platform: Platform) -> None:
    put(platform, "plain")
    ids = [post(platform, "plain", {}).json()["ids"][0] for _ in range(2)]
    assert len(set(ids)) == len(platform.events("hook")) == 2


def test_ids_of_one_webhook_cannot_collide_with_other_ids(platform: Platform) -> None:
    put(platform, "cron", id="body.id")
    put(platform, "cron-f", id="body.id")
    ids = [
        post(platform, name, {"id": text}).json()["ids"][0]
        for name, text in [
            ("cron", "f:1"),
            ("cron-f", "1"),
            ("cron", "x" * 300),
            ("cron", "x" * 301),
            ("cron", "a\nb\0"),
        ]
    ]
    assert ids[:2] == ["webhook:cron:f:1", "webhook:cron-f:1"]
    assert len(set(ids)) == 5
    assert [platform.event(item)["id"] for item in ids] == ids


# --- errors ----------------------------------------------------------------------------------------------------------


def test_an_unknown_webhook_is_not_found(platform: Platform) -> None:
    for name in ("none", "No%20Ne", "a/b", "..%2f", "x" * 500, ""):
        assert post(platform, name, {}).status == 404, name
    assert platform.http("OPTIONS", "/webhooks/none", headers={"origin": "https://a.b"}).status == 405


NO_EVENTS: list[tuple[Json, Json, str, str]] = [
    ({"event": "a/{{ body.kind }}"}, {}, "/event", 'there is no key "kind"'),
    ({"event": "a/{{ body.kind }}"}, {"kind": None}, "/event", "is null, not a text"),
    ({"event": "{{ body.kind }}"}, {"kind": ""}, "/event", "name is missing or not a text"),
    ({"event": "{{ body.kind }}"}, {"kind": "stepwell/run.failed"}, "/event", "reserved for the engine"),
    ({"event": "{{ body.kind }}"}, {"kind": "a\nb"}, "/event", "no control characters"),
    ({"event": "{{ body.kind }}"}, {"kind": "x" * 257}, "/event", "at most 256"),
    ({"data": "body.data"}, {}, "/data", 'there is no key "data"'),
    ({"data": "timestamp('2026-01-01T00:00:00Z')"}, {}, "/data", "which JSON cannot represent"),
    ({"id": "body.id"}, {"id": [1]}, "/id", "is a list"),
    ({"id": "body.id"}, {"id": True}, "/id", "is true or false"),
    ({"user": "body.user"}, {"user": [1]}, "/user", "is a list"),
    ({"user": "{'id': body.id}"}, {"id": "x" * 300}, "/user", "at most 256"),
    ({"ts": "body.at"}, {"at": "yesterday"}, "/ts", "the value is not a time"),
    ({"ts": "body.at"}, {"at": "2026-06-01T12:00:00"}, "/ts", "the value is not a time"),
    ({"ts": "body.at"}, {"at": -1}, "/ts", "since 1970"),
    ({"ts": "body.at"}, {"at": 1.5}, "/ts", "the value is not a time"),
    ({"if": "body.yes"}, {"yes": "yes"}, "/if", "is a string, not true or false"),
    ({"if": "body.yes"}, {}, "/if", 'there is no key "yes"'),
]


def test_a_rule_that_fails_for_a_request_reports_the_reason(platform: Platform) -> None:
    for row, (rule, body, pointer, message) in enumerate(NO_EVENTS):
        put(platform, f"rule-{row}", **rule)
        (error,) = refused(post(platform, f"rule-{row}", body), 422)["errors"]
        assert error["pointer"] == pointer, (rule, body)
        assert message in error["message"], (rule, body)
    assert platform.events() == []


def test_the_error_of_a_rule_contains_the_expression_and_no_secret(platform: Platform) -> None:
    platform.secret("GITHUB_SECRET", SECRET)
    put(platform, "github", **{**GITHUB, "data": "body.none"})
    body = orjson.dumps(PUSH)
    answer = post(platform, "github", body, **github_headers(body))
    problem = refused(answer, 422)
    why = 'there is no key "none"'
    assert problem["detail"] == f"webhook github: data `body.none`: {why}"
    assert problem["errors"] == [{"pointer": "/data", "expression": "body.none", "message": why}]
    assert SECRET.encode() not in answer.body


def test_a_webhook_can_make_identify_events(platform: Platform) -> None:
    put(platform, "crm", event="stepwell/identify", user="body")
    event = event_made(platform, post(platform, "crm", {"external_id": "ada", "email": "ada@b.c"}))
    assert (event["name"], event["user"]["email"]) == ("stepwell/identify", "ada@b.c")
    assert platform.api("GET", "/v1/users/ada%40b.c")["id"] == "ada"


def test_a_type_that_refuses_an_event_refuses_the_request(platform: Platform) -> None:
    schema = {"type": "object", "required": ["total"]}
    platform.api("POST", "/v1/types", {"name": "hook", "version": "1", "schema": schema, "policy": "reject"})
    put(platform, "typed")
    assert "total" in refused(post(platform, "typed", {}), 400)["detail"]
    assert platform.events("hook") == []
    assert event_made(platform, post(platform, "typed", {"total": 1}))["data"] == {"total": 1}


# --- hostile requests ------------------------------------------------------------------------------------------------


UNREADABLE: list[tuple[bytes, str]] = [
    (b"no JSON", "application/json"),
    (b'{"a": \xff}', "application/json"),
    (b'{"a": "\\ud800"}', "application/json"),
    (b"[" * 100_000, "application/json"),
    (b"[" + b"[]," * 200_000 + b"1]", "application/json"),
    (b"[" + b"[]," * 200_000 + b"1]", "text/plain"),
    (b'{"n": 123456789012345678901234567890}', "application/json"),
    (b"NaN", "application/json"),
    (b"a=%FF", FORM),
    (b"&".join([b"a=1"] * 1001), FORM),
    (b"\xff", "text/plain"),
    (b"a", "text/plain; charset=idna"),
    (b"a", "text/plain; charset=zip"),
    (b"\x1f\x8b\x00", "application/octet-stream"),
]


def test_a_body_that_cannot_be_parsed_is_refused_if_the_rule_uses_it(platform: Platform) -> None:
    put(platform, "needs")
    put(platform, "needs-not", data="{'agent': headers['user-agent']}")
    for body, content_type in UNREADABLE:
        refused(post(platform, "needs", body, content_type), 400)
    assert platform.events() == []
    for body, content_type in UNREADABLE:
        event = event_made(platform, post(platform, "needs-not", body, content_type, user_agent="a"))
        assert event["data"] == {"agent": "a"}, (body[:30], content_type)


def test_a_request_that_is_too_large_is_refused(platform: Platform) -> None:
    put(platform, "large")
    put(platform, "part", data="{'size': size(body.text)}")
    refused(post(platform, "large", {"text": "x" * 10_000_000}), 413)
    problem = refused(post(platform, "large", {"text": "x" * 300_000}), 413)
    assert "262,144" in problem["detail"]
    assert event_made(platform, post(platform, "part", {"text": "x" * 300_000}))["data"] == {"size": 300_000}
    put(platform, "grows", data="[body, body, body, body, body, body]")
    refused(post(platform, "grows", {"text": "x" * 1_000_000}), 413)


def test_a_deeply_nested_body_makes_no_event(platform: Platform) -> None:
    put(platform, "deep")
    put(platform, "deeper", data="{'a': body}")
    put(platform, "top", data="{'ok': body.ok}")
    for depth, is_fine in ((120, True), (128, False), (300, False), (900, False), (100_000, False)):
        body = b'{"ok": 1, "a": %b}' % (b"[" * depth + b"]" * depth)
        for name in ("deep", "deeper", "top"):
            assert post(platform, name, body).status == (200 if is_fine else 400)
            assert post(platform, name, body, "text/plain").status == (200 if is_fine else 400)


@pytest.mark.parametrize(
    "expression",
    [
        "body.xs.map(x, body)",
        "body.xs.filter(x, x == size(body.text))",
        "body.xs.map(x, body.xs.map(y, x * y))",
        "body.xs.exists(x, body.xs.exists(y, x * y < 0))",
        "body.many.map(x, x)",
    ],
)
def test_an_expression_that_is_too_expensive_is_refused(platform: Platform, expression: str) -> None:
    put(platform, "slow", data=f"{{'x': {expression}}}")
    sent = {"xs": list(range(1000)), "many": [0] * 100_000, "text": "x" * 1_000_000}
    assert refused(post(platform, "slow", sent), 422)["errors"][0]["pointer"] == "/data"
    assert platform.events() == []


def test_headers_can_contain_any_value(platform: Platform) -> None:
    put(platform, "odd", event="odd", id="headers['x-id']", data="{'all': headers['x-odd'], 'query': query}")
    answer = post(platform, "odd?a=%0D%0ASet-Cookie:%20x&b=%FF&b=2", {}, x_odd="{{ 1 }}\x7f", x_id="a b\x7f")
    event = event_made(platform, answer)
    assert event["data"]["all"] == "{{ 1 }}\x7f"
    assert event["data"]["query"] == {"a": "\r\nSet-Cookie: x", "b": ["\ufffd", "2"]}
    assert "set-cookie" not in answer.headers


# --- managing rules --------------------------------------------------------------------------------------------------


def test_rules_can_be_created_changed_listed_and_removed(platform: Platform) -> None:
    assert platform.api("GET", "/v1/webhooks") == {"data": [], "next": None}
    first = put(platform, "b", name="b", verify={"type": "stripe", "secret": "S"}, user=None)
    put(platform, "a")
    assert platform.api("GET", "/v1/webhooks/b") == first
    assert first == {
        "name": "b",
        "event": "hook",
        "verify": {"type": "stripe", "secret": "S"},
        "changed_at": "2026-06-01T10:00:30.000Z",
    }
    platform.travel("1m")
    assert put(platform, "b", event="other")["changed_at"] > first["changed_at"]
    assert [item["name"] for item in platform.api("GET", "/v1/webhooks")["data"]] == ["a", "b"]
    assert event_made(platform, post(platform, "b", {}))["name"] == "other"
    assert platform.api("DELETE", "/v1/webhooks/b")["event"] == "other"
    for method in ("GET", "DELETE"):
        with pytest.raises(Refused) as refusal:
            platform.api(method, "/v1/webhooks/b")
        assert refusal.value.status == 404
    assert post(platform, "b", {}).status == 404


def test_a_rule_survives_a_restart(platform: Platform) -> None:
    put(platform, "kept")
    platform.restart()
    assert event_made(platform, post(platform, "kept", {}))["name"] == "hook"


def test_rules_are_registered_with_their_functions(platform: Platform) -> None:
    files = {"webhooks/github.yaml": "event: github/{{ body.kind }}\nid: body.id\n"}
    platform.deploy(function(on="github/push"), files)
    event = event_made(platform, post(platform, "github", {"kind": "push", "id": 1}))
    assert [run["status"] for run in platform.runs(event["id"])] == ["completed"]
    with pytest.raises(Refused) as refusal:
        platform.deploy(function(), {"webhooks/broken.json": '{"event": "x", "id": "body."}'})
    assert refusal.value.errors[0]["pointer"] == "/id"


@pytest.mark.parametrize(
    ("name", "rule", "pointer"),
    [
        ("a", [], ""),
        ("a", {}, "/event"),
        ("a", {"event": 5}, "/event"),
        ("a", {"event": ""}, "/event"),
        ("a", {"event": "x" * 300}, "/event"),
        ("a", {"event": "stepwell/run.failed"}, "/event"),
        ("a", {"event": "stepwell/{{ body.x }}"}, "/event"),
        ("a", {"event": "{{ body.x"}, "/event"),
        ("a", {"event": "{{ event.name }}"}, "/event"),
        ("a", {"event": "{{ }}"}, "/event"),
        ("a", {"event": "e", "data": "bdy"}, "/data"),
        ("a", {"event": "e", "data": "body" + " " * 3000}, "/data"),
        ("a", {"event": "e", "data": ""}, "/data"),
        ("a", {"event": "e", "if": "'text'"}, "/if"),
        ("a", {"event": "e", "ids": "body.id"}, "/ids"),
        ("a", {"event": "e", "name": "b"}, "/name"),
        ("A_b", {"event": "e"}, "/name"),
        ("a", {"event": "e", "verify": {}}, "/verify/type"),
        ("a", {"event": "e", "verify": {"type": "md5", "secret": "S"}}, "/verify/type"),
        ("a", {"event": "e", "verify": {"type": "stripe", "secret": "not a name"}}, "/verify/secret"),
        ("a", {"event": "e", "verify": {"type": "hmac", "secret": "S"}}, "/verify"),
        ("a", {"event": "e", "verify": {"type": "github", "secret": "S", "tolerance": "5m"}}, "/verify/tolerance"),
        ("a", {"event": "e", "verify": {"type": "github", "secret": "S", "algorithm": "sha1"}}, "/verify/algorithm"),
        ("a", {"event": "e", "verify": {"type": "stripe", "secret": "S", "header": "a\r\nb"}}, "/verify/header"),
    ],
    ids=str,
)
def test_an_invalid_rule_is_refused_with_a_pointer(platform: Platform, name: str, rule: Any, pointer: str) -> None:
    with pytest.raises(Refused) as refusal:
        platform.api("PUT", f"/v1/webhooks/{name}", rule)
    assert refusal.value.status == 400
    assert pointer in [error["pointer"] for error in refusal.value.errors]
    assert platform.api("GET", "/v1/webhooks")["data"] == []


def test_rules_need_a_manage_key_and_requests_need_none(platform: Platform) -> None:
    body = json.dumps({"event": "e"}).encode()
    if platform.name == "aws":
        assert platform.http("PUT", "/v1/webhooks/a", body, {"authorization": "Bearer wrong"}).status == 401
    put(platform, "a")
    assert post(platform, "a", urlencode({"x": 1}).encode(), FORM).status == 200
