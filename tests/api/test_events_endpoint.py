"""`POST /e` on a real server: accepted and refused requests, and the errors."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.servers import Json, Server, dev, new_key, serve, write_function

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("events")
    with dev(write_function(folder / "f"), folder / "db") as server:
        yield server


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=20) as client:
        yield client


def ids_of(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body == {"ids": body["ids"], "status": 200}
    return list(body["ids"])


def refused(answer: httpx.Response, status: int) -> Json:
    """The problem document (RFC 9457) that the answer must be."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: Json = answer.json()
    assert problem["status"] == status
    assert problem["type"] == "about:blank"
    for field in ("title", "detail", "message", "error"):
        assert isinstance(problem[field], str)
        assert problem[field]
    return problem


def places(problem: Json) -> list[tuple[int, str]]:
    assert all(error["message"] for error in problem["errors"])
    return [(error["index"], error["pointer"]) for error in problem["errors"]]


def stored(http: httpx.Client, name: str) -> list[Json]:
    events: list[Json] = http.get("/v1/events", params={"name": name}).json()["data"]
    return events


# --- accepted requests -----------------------------------------------------------------------------------------------


def test_one_event_answers_with_its_id(http: httpx.Client) -> None:
    (event_id,) = ids_of(http.post("/e/any-key", json={"name": "one", "data": {"n": 1}, "user": {"id": 7}, "ts": 5}))
    event = http.get(f"/v1/events/{event_id}").json()
    assert {field: event[field] for field in ("name", "data", "user", "id", "ts", "v")} == {
        "name": "one", "data": {"n": 1}, "user": {"id": 7}, "id": event_id, "ts": 5, "v": None
    }  # fmt: skip


def test_an_array_answers_with_the_ids_in_its_order(http: httpx.Client) -> None:
    events = [{"name": "many", "data": {"n": n}} for n in range(5)]
    ids = ids_of(http.post("/e/k", json=events))
    assert [event["id"] for event in reversed(stored(http, "many"))] == ids
    assert [event["data"]["n"] for event in reversed(stored(http, "many"))] == [0, 1, 2, 3, 4]


def test_a_key_may_be_a_bearer_token_instead(http: httpx.Client) -> None:
    assert ids_of(http.post("/e", json={"name": "bearer"}, headers={"authorization": "Bearer k"}))


def test_the_content_type_does_not_matter(http: httpx.Client) -> None:
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "nonsense", ""):
        assert ids_of(http.post("/e/k", content=b'{"name": "typed"}', headers={"content-type": content_type}))


def test_a_body_may_come_in_chunks(http: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'[{"name": "chunked"},'
        yield b'{"name": "chun'
        yield b'ked"}]'

    assert len(ids_of(http.post("/e/k", content=chunks()))) == 2


def test_a_duplicate_answers_with_its_id_and_starts_nothing(http: httpx.Client) -> None:
    sent = {"name": "go", "id": "order-17", "data": {"n": 1}}
    assert ids_of(http.post("/e/k", json=sent)) == ["order-17"]
    assert ids_of(http.post("/e/k", json={**sent, "data": {"n": 2}})) == ["order-17"]
    assert ids_of(http.post("/e/k", json=[sent, sent])) == ["order-17", "order-17"]
    assert http.get("/v1/events/order-17").json()["data"] == {"n": 1}
    assert len(http.get("/v1/events/order-17/runs").json()["data"]) == 1


def test_an_id_twice_in_one_request_is_one_event(http: httpx.Client) -> None:
    sent = {"name": "twins", "id": "twin"}
    assert ids_of(http.post("/e/k", json=[sent, sent])) == ["twin", "twin"]
    assert len(stored(http, "twins")) == 1


def test_null_fields_are_ignored(http: httpx.Client) -> None:
    sent = {"name": "nulls", "data": None, "user": None, "id": None, "ts": None, "v": None}
    ids_of(http.post("/e/k", json=sent))
    (event,) = stored(http, "nulls")
    assert (event["data"], event["user"], event["v"]) == ({}, {}, None)


def test_the_largest_integers_are_kept_exactly(http: httpx.Client) -> None:
    ids_of(http.post("/e/k", json={"name": "exact", "data": {"low": -(2**63), "high": 2**64 - 1}}))
    assert stored(http, "exact")[0]["data"] == {"low": -(2**63), "high": 2**64 - 1}


def test_control_characters_in_values_come_back_as_they_were(http: httpx.Client) -> None:
    text = "".join(map(chr, range(32))) + "\x7f\u2028\ufffe😀"
    ids_of(http.post("/e/k", json={"name": "controls", "data": {text: text}}))
    assert stored(http, "controls")[0]["data"] == {text: text}


# --- refused requests ------------------------------------------------------------------------------------------------


def test_every_error_has_an_index_and_a_pointer_and_nothing_is_accepted(http: httpx.Client) -> None:
    events: list[Any] = [
        {"name": "atomic"},
        {"name": "", "data": [], "user": "ada"},
        7,
        {"name": "atomic", "id": 5, "ts": "now", "v": 1, "dta": {}, "a/b~c": 1},
        {"name": "stepwell/run.completed"},
    ]
    problem = refused(http.post("/e/k", json=events), 400)
    assert places(problem) == [
        (1, "/name"), (1, "/data"), (1, "/user"),
        (2, ""),
        (3, "/id"), (3, "/ts"), (3, "/v"), (3, "/dta"), (3, "/a~1b~0c"),
        (4, "/name"),
    ]  # fmt: skip
    assert stored(http, "atomic") == []


def test_an_unknown_field_names_its_nearest(http: httpx.Client) -> None:
    problem = refused(http.post("/e/k", json={"name": "x", "usr": {}}), 400)
    assert "'user'" in problem["errors"][0]["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"hello",
        b'{"name": "x"',
        b'{"name": "x"}{"name": "x"}',
        b'{"name": "x", "data": {"n": NaN}}',
        b'{"name": "x", "data": {"n": Infinity}}',
        b"\xff\xfe",
        b'{"name": "\xff"}',
        b'{"name": "\\ud800"}',
        b"{'name': 'x'}",
        b'{"name": "x", "data": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b"[" * 1_000_000,
        b'{"name": "a\x00b"}',
        b'{"name": "x", "data": {"n": 1' + b"0" * 5000 + b"}}",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_what_is_not_json_is_refused(http: httpx.Client, body: bytes) -> None:
    problem = refused(http.post("/e/k", content=body), 400)
    assert places(problem) == [(0, "")]
    assert "JSON" in problem["detail"]


@pytest.mark.parametrize("body", [b"[]", b"null", b"7", b'"x"', b"true", b"[[]]", b"{}", b"[{}]"])
def test_json_that_is_not_an_event_is_refused(http: httpx.Client, body: bytes) -> None:
    assert refused(http.post("/e/k", content=body), 400)["errors"]


@pytest.mark.parametrize("digits", ["18446744073709551616", "-9223372036854775809", "1" + "0" * 30, "1" + "0" * 300])
def test_an_integer_that_does_not_fit_is_refused_with_its_place(http: httpx.Client, digits: str) -> None:
    body = b'[{"name": "x"}, {"name": "big", "data": {"a/b": [1, %s]}}]' % digits.encode()
    assert places(refused(http.post("/e/k", content=body), 400)) == [(1, "/data/a~1b/1")]


def test_a_number_beyond_floats_is_refused_and_not_changed(http: httpx.Client) -> None:
    answer = http.post("/e/k", content=b'{"name": "huge", "data": {"n": 1e999}}')
    refused(answer, 400)
    assert stored(http, "huge") == []


@pytest.mark.parametrize("name", ["a\nb", "a\x00b", "\x7f", "x" * 257])
def test_a_name_with_control_characters_or_too_long_is_refused(http: httpx.Client, name: str) -> None:
    assert places(refused(http.post("/e/k", json={"name": name}), 400)) == [(0, "/name")]


@pytest.mark.parametrize("ts", [-1, 1.5, "1", True, 10**15])
def test_an_invalid_time_is_refused(http: httpx.Client, ts: Any) -> None:
    assert places(refused(http.post("/e/k", json={"name": "x", "ts": ts}), 400)) == [(0, "/ts")]


def test_reserved_event_names_are_refused_except_identify(http: httpx.Client) -> None:
    refused(http.post("/e/k", json={"name": "stepwell/scheduled.timer"}), 400)
    ids_of(http.post("/e/k", json={"name": "stepwell/identify", "user": {"id": "ada"}}))


# --- sizes -----------------------------------------------------------------------------------------------------------


def sized(name: str, size: int) -> bytes:
    """The body of an event with exactly this many bytes."""
    empty = json.dumps({"name": name, "data": {"x": ""}}, separators=(",", ":"))
    return json.dumps({"name": name, "data": {"x": "x" * (size - len(empty))}}, separators=(",", ":")).encode()


def test_an_event_may_have_256_kib(http: httpx.Client) -> None:
    ids_of(http.post("/e/k", content=sized("large", 256 * 1024)))


def test_a_large_request_is_read_like_a_small_one(http: httpx.Client) -> None:
    padding = {"text": "x" * 40_000}
    seed = {"x-inngest-event-id-seed": "1700000000000,AAECAwQFBgcICQ=="}
    events = [{"name": "long", "data": {"n": n, **padding}} for n in range(3)]
    ids = ids_of(http.post("/e/k", json=events, headers=seed))
    assert ids_of(http.post("/e/k", json=events, headers=seed)) == ids
    assert [event["data"]["n"] for event in reversed(stored(http, "long"))] == [0, 1, 2]
    packed = gzip.compress(json.dumps([{"name": "packed", "data": {"n": n}} for n in range(1000)]).encode(), 0)
    assert len(packed) > 16 * 1024
    assert len(ids_of(http.post("/e/k", content=packed, headers={"content-encoding": "gzip"}))) == 1000


def test_a_large_request_is_refused_with_the_places_of_all_errors(http: httpx.Client) -> None:
    padding = {"text": "x" * 20_000}
    bad = [{"name": "ok", "data": padding}, {"name": ""}, {"name": "n", "data": 5}, {"name": "n", "data": {"n": 2**64}}]
    assert places(refused(http.post("/e/k", json=bad), 400)) == [(1, "/name"), (2, "/data"), (3, "/data/n")]


def test_a_larger_event_is_refused_with_its_index(http: httpx.Client) -> None:
    body = b'[{"name":"x"},' + sized("too-large", 256 * 1024 + 1) + b"]"
    assert places(refused(http.post("/e/k", content=body), 413)) == [(1, "")]
    assert stored(http, "too-large") == []


def test_a_request_may_have_4_mib(http: httpx.Client) -> None:
    one = sized("filler", 200_000)
    body = b"[" + b",".join([one] * 20) + b"]"
    assert len(ids_of(http.post("/e/k", content=body + b" " * (4 * MIB - len(body))))) == 20


def test_a_larger_request_is_refused(http: httpx.Client) -> None:
    refused(http.post("/e/k", content=b" " * (4 * MIB + 1)), 413)


def test_a_larger_request_in_chunks_is_refused(http: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(65):
            yield b" " * 65536

    refused(http.post("/e/k", content=chunks()), 413)


# --- HTTP ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_events_are_only_posted(http: httpx.Client, method: str) -> None:
    for path in ("/e", "/e/k"):
        answer = http.request(method, path)
        refused(answer, 405)
        assert "POST" in answer.headers["allow"]


def test_events_cannot_be_sent_with_head(http: httpx.Client) -> None:
    answer = http.head("/e/k")
    assert (answer.status_code, answer.content) == (405, b"")


def test_pages_may_send_events_after_a_preflight(http: httpx.Client) -> None:
    origin = {"origin": "http://localhost:3000"}
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    answer = http.options("/e/k", headers={**origin, **asked})
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "content-type" in answer.headers["access-control-allow-headers"]
    for body in (b'{"name": "from-a-page"}', b"nonsense"):
        assert http.post("/e/k", content=body, headers=origin).headers["access-control-allow-origin"] == "*"


def raw(server: Server, *requests: bytes) -> list[bytes]:
    """The status lines of all answers on one connection."""
    url = urlsplit(server.url)
    with socket.create_connection((str(url.hostname), url.port or 80), timeout=10) as connection:
        statuses = []
        for request in requests:
            connection.sendall(request)
            answer = b""
            while b"\r\n\r\n" not in answer:
                piece = connection.recv(65536)
                if not piece:
                    break
                answer += piece
            head, _, body = answer.partition(b"\r\n\r\n")
            statuses.append(head.split(b"\r\n")[0])
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            missing = int(lengths[0].split(b":")[1]) - len(body) if lengths else 0
            while missing > 0 and (piece := connection.recv(missing)):
                missing -= len(piece)
        return statuses


def post(body: bytes, *headers: bytes, path: bytes = b"/e/k") -> bytes:
    length = b"" if any(h.lower().startswith(b"content-length") for h in headers) else b"content-length: %d" % len(body)
    lines = [b"POST " + path + b" HTTP/1.1", b"host: localhost", *headers, *([length] if length else [])]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def test_a_connection_lives_on_after_an_error(server: Server) -> None:
    good, bad = post(b'{"name": "alive"}'), post(b"nonsense")
    codes = [line.split()[1] for line in raw(server, good, bad, good, bad, good)]
    assert codes == [b"200", b"400", b"200", b"400", b"200"]


@pytest.mark.parametrize("length", [b"-1", b"abc", b"1e3", b"99999999999999999999999", b""])
def test_a_malformed_length_is_a_bad_request(server: Server, length: bytes) -> None:
    (status,) = raw(server, post(b'{"name": "x"}', b"content-length: " + length))
    assert status.split()[1] == b"400"
    assert raw(server, post(b'{"name": "x"}'))[0].split()[1] == b"200"  # the server still works


def test_a_length_beyond_the_limit_is_refused_before_the_body_comes(server: Server) -> None:
    (status,) = raw(server, post(b"", b"content-length: 99999999"))
    assert status.split()[1] == b"413"


def test_bytes_that_are_not_http_do_no_harm(server: Server) -> None:
    for nonsense in (b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"POST /e/\xff\xfe HTTP/1.1\r\nhost: localhost\r\n\r\n"):
        raw(server, nonsense)
    assert raw(server, post(b'{"name": "x"}'))[0].split()[1] == b"200"


def test_a_request_that_ends_before_its_body_is_not_accepted(server: Server, http: httpx.Client) -> None:
    url = urlsplit(server.url)
    body = b'{"name": "half"}'
    with socket.create_connection((str(url.hostname), url.port or 80), timeout=10) as connection:
        head = b"POST /e/k HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
        connection.sendall(head + b"%x\r\n%s\r\n" % (len(body), body))
    ids_of(http.post("/e/k", json={"name": "after-half"}))
    assert stored(http, "half") == []


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, str]]:
    """A `stepwell serve`, and a send key."""
    folder = tmp_path_factory.mktemp("guarded")
    key = new_key(folder / "db", "send")
    with serve(write_function(folder / "f"), folder / "db") as server, httpx.Client(base_url=server.url) as client:
        yield client, key


def test_a_known_key_may_send(guarded: tuple[httpx.Client, str]) -> None:
    http, key = guarded
    encoded = "".join(f"%{byte:02x}" for byte in key.encode())
    for path, headers in (
        (f"/e/{key}", {}),
        (f"/e/{encoded}", {}),
        ("/e", {"authorization": f"Bearer {key}"}),
        ("/e", {"authorization": f"bearer  {key}"}),
    ):
        assert ids_of(http.post(path, json={"name": "x"}, headers=headers))


@pytest.mark.parametrize("path", ["/e/wrong", "/e", "/e/", "/e/%00", "/e/%ff", "/e/a/b", "/e/" + "x" * 5000])
def test_a_wrong_key_is_a_401(guarded: tuple[httpx.Client, str], path: str) -> None:
    http, _ = guarded
    answer = http.post(path, json={"name": "x"})
    refused(answer, 401)
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("header", ["Bearer wrong", "Basic {key}", "Bearer", "", "{key}"])
def test_a_wrong_authorization_is_a_401(guarded: tuple[httpx.Client, str], header: str) -> None:
    http, key = guarded
    refused(http.post("/e", json={"name": "x"}, headers={"authorization": header.format(key=key)}), 401)


def test_a_request_with_a_wrong_key_gets_no_details_about_the_body(guarded: tuple[httpx.Client, str]) -> None:
    http, _ = guarded
    assert "errors" not in refused(http.post("/e/wrong", content=b"nonsense"), 401)
