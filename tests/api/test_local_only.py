"""The development server needs no API key, so it only answers this machine, and no pages of other sites."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers import cli, dev, write_function


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_function(tmp_path_factory.mktemp("local-only") / "f")


@pytest.fixture(scope="module")
def http(functions: Path) -> Iterator[httpx.Client]:
    with dev(functions, functions.parent / "db") as server, httpx.Client(base_url=server.url) as client:
        yield client


def statuses(http: httpx.Client, **headers: str) -> set[int]:
    """The status of each part of the API: events, /v1, and paths without a key."""
    return {
        http.post("/e/k", json={"name": "x"}, headers=headers).status_code,
        http.get("/v1/runs", headers=headers).status_code,
        http.get("/healthz", headers=headers).status_code,
    }


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:1", "LOCALHOST:8288", "127.0.0.1", "127.0.0.1:65535", "[::1]", "[::1]:8288"],
)
def test_any_name_of_this_machine_is_accepted_as_host(http: httpx.Client, host: str) -> None:
    assert statuses(http, host=host) == {200}


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8288", "localhost.evil.example", "127.0.0.1.evil.example", "evillocalhost",
     "[::1", "localhost@evil.example", ":8288"],
)  # fmt: skip
def test_another_host_is_refused(http: httpx.Client, host: str) -> None:
    assert statuses(http, host=host) == {403}


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "http://127.0.0.1:8288", "https://[::1]:1", "http://localhost"]
)
def test_a_page_of_this_machine_may_send(http: httpx.Client, origin: str) -> None:
    assert statuses(http, origin=origin) == {200}


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "http://localhost.evil.example", "null", "file://", "http://10.0.0.7", "nonsense", "http://[",
     "http://localhost@evil.example"],
)  # fmt: skip
def test_a_page_of_another_site_is_refused(http: httpx.Client, origin: str) -> None:
    assert statuses(http, origin=origin) == {403}
    answer = http.options("/e/k", headers={"origin": origin, "access-control-request-method": "POST"})
    assert answer.status_code == 403


@pytest.fixture(scope="module")
def open_http(functions: Path) -> Iterator[httpx.Client]:
    """A client of a server with allowed hosts."""
    allowed = ("--allow-host", "host.docker.internal", "--allow-host", "*.local", "--allow-host", "Stepwell")
    with (
        dev(functions, functions.parent / "open", *allowed) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        yield client


@pytest.mark.parametrize(
    "host",
    ["host.docker.internal:8288", "HOST.docker.internal", "host.docker.internal.", "stepwell:8288", "mybox.local",
     "a.b.local"],
)  # fmt: skip
def test_an_allowed_host_and_its_pages_are_accepted(open_http: httpx.Client, host: str) -> None:
    assert statuses(open_http, host=host) == {200}
    assert statuses(open_http, origin=f"http://{host.partition(':')[0]}:3000") == {200}


@pytest.mark.parametrize(
    "host", ["evil.example", "x.host.docker.internal", "local", "evillocal", "stepwell.evil.example"]
)
def test_other_hosts_stay_refused(open_http: httpx.Client, host: str) -> None:
    assert statuses(open_http, host=host) == {403}


def test_the_refusal_says_how_to_allow_a_host(http: httpx.Client) -> None:
    answer = http.post("/e/k", json={"name": "x"}, headers={"host": "host.docker.internal:8288"})
    assert "--allow-host host.docker.internal" in answer.json()["message"]
    answer = http.post("/e/k", json={"name": "x"}, headers={"origin": "http://mybox.local:3000"})
    assert "--allow-host mybox.local" in answer.json()["message"]
    for odd in ("$(reboot)", "a b", "[::1"):  # the advice must not contain such names
        assert "--allow-host" not in http.get("/healthz", headers={"host": odd}).text


@pytest.mark.parametrize("name", ["http://a.example", "a.example:8288", "*", "a/b", "", "*.*"])
def test_an_invalid_host_cannot_be_allowed(tmp_path: Path, name: str) -> None:
    done = cli("dev", str(tmp_path), "--allow-host", name)
    assert done.returncode == 2
    assert "--allow-host" in done.stderr
    assert "without scheme and port" in done.stderr


def test_a_refusal_is_a_problem_document(http: httpx.Client) -> None:
    for path in ("/e/k", "/v1/runs"):
        answer = http.post(path, headers={"host": "evil.example"})
        assert answer.headers["content-type"] == "application/problem+json"
        assert (answer.json()["status"], answer.json()["title"]) == (403, "Forbidden")


def test_any_key_and_none_will_do(http: httpx.Client) -> None:
    assert http.post("/e/whatever", json={"name": "x"}).status_code == 200
    assert http.post("/e", json={"name": "x"}).status_code == 200
    assert http.get("/v1/runs", headers={"authorization": "Bearer whatever"}).status_code == 200


def test_with_one_key_every_other_key_is_refused(functions: Path) -> None:
    with dev(functions, functions.parent / "keyed", "--key", "k") as server, httpx.Client(base_url=server.url) as http:
        event = {"name": "x"}
        assert http.post("/e/k", json=event).status_code == 200
        assert http.post("/e/wrong", json=event).status_code == 401
        assert http.post("/e", json=event).status_code == 401
        assert http.get("/v1/runs").status_code == 401
        assert http.get("/v1/runs", headers={"authorization": "Bearer k"}).status_code == 200
        assert http.get("/healthz").status_code == 200
