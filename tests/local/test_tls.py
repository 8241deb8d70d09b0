"""HTTPS: HTTP/1.1 and HTTP/2 with one certificate, and clients that do not use TLS."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from tests.local.web import Backend, eventually, listening, run
from tests.servers import Server, cli, dev, new_key, serving, write_function

Files = tuple[Path, Path]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def issue(authority: trustme.CA, folder: Path, name: str = "server") -> Files:
    """The files of a certificate for this machine, and of the key."""
    issued = authority.issue_cert("localhost", "127.0.0.1")
    files = folder / f"{name}.pem", folder / f"{name}.key"
    files[0].write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    files[1].write_bytes(issued.private_key_pem.bytes())
    return files


@pytest.fixture(scope="module")
def files(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Files:
    return issue(authority, tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def trust(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(scope="module")
def server(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("serve")
    functions = write_function(folder / "f")
    key = new_key(folder / "db")
    options = ("--tls-cert", files[0], "--tls-key", files[1])
    with serving("serve", functions, "--port", "0", "--db", folder / "db", *options) as server:
        server.key = key  # type: ignore[attr-defined]
        yield server


def address(server: Server) -> tuple[str, int]:
    return "127.0.0.1", int(server.url.rpartition(":")[2])


@pytest.mark.parametrize(("http2", "version"), [(True, "HTTP/2"), (False, "HTTP/1.1")])
def test_the_client_chooses_by_alpn(server: Server, trust: ssl.SSLContext, http2: bool, version: str) -> None:
    assert server.url.startswith("https://127.0.0.1:")
    headers = {"authorization": f"Bearer {server.key}"}  # type: ignore[attr-defined]
    with httpx.Client(http2=http2, verify=trust, base_url=server.url, headers=headers) as http:
        sent = http.post("/e", json=[{"name": "go"}] * 10)
        assert (sent.status_code, sent.http_version) == (200, version)
        assert len(http.get("/v1/events").json()["data"]) >= 10
        assert http.get("/healthz").http_version == version


@pytest.mark.parametrize("sent", [b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", b"POST /e HTTP/1.1\r\nHost: a\r\n\r\n"])
def test_plain_http_gets_an_explanation(server: Server, sent: bytes) -> None:
    with socket.create_connection(address(server), timeout=10) as client:
        client.sendall(sent)
        answer = b"".join(iter(lambda: client.recv(1000), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"https://" in answer
    message = "TLS handshake with 127.0.0.1 failed: http request"
    assert server.line(lambda line: line["message"] == message)["level"] == "warning"


def test_a_handshake_that_fails_is_one_line(server: Server, trust: ssl.SSLContext) -> None:
    old = ssl.create_default_context()
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(ssl.SSLError), socket.create_connection(address(server)) as client:
        ssl.create_default_context().wrap_socket(client, server_hostname="localhost")  # does not trust the certificate
    with socket.create_connection(address(server)) as client:
        client.sendall(b"\x16\x03\x01" + b"\0" * 100)
        client.recv(100)
    socket.create_connection(address(server)).close()  # like a load balancer's check
    with httpx.Client(verify=trust, base_url=server.url) as http:
        assert http.get("/healthz").status_code == 200
    server.line(lambda line: "unknown ca" in line["message"])
    lines = [line for line in server.lines if "TLS" in line["message"]]
    assert all(line["level"] == "warning" and "exception" not in line for line in lines)
    assert server.stderr == ""


def test_tls_1_1_is_not_spoken(server: Server) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)), socket.create_connection(address(server)) as client:
        context.wrap_socket(client)


def test_unfinished_handshakes_do_not_block_other_clients(
    files: Files, trust: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stepwell.local.http import connection_limit
    from stepwell.local.http.tls import Certificate

    monkeypatch.setattr(connection_limit, "most_connections", lambda: 20)

    async def main() -> None:
        async with listening(Backend(), certificate=Certificate(*files)) as (web, where):
            silent = [socket.create_connection(where) for _ in range(100)]
            await eventually(lambda: len(web.server_state.connections) >= 15)
            url = f"https://localhost:{where[1]}"
            for http2 in (True, False):
                async with httpx.AsyncClient(verify=trust, http2=http2, base_url=url) as http:
                    assert (await http.post("/", content=b"abc")).text == "3"
            assert len(web.server_state.connections) <= 30
            for client in silent:
                client.close()

    run(main())


def test_dev_serves_https_too(files: Files, trust: ssl.SSLContext, tmp_path: Path) -> None:
    functions = write_function(tmp_path / "f")
    with dev(functions, tmp_path / "db", "--tls-cert", files[0], "--tls-key", files[1]) as server:
        assert server.url.startswith("https://")
        assert httpx.get(f"{server.url}/healthz", verify=trust).status_code == 200


# --- files -----------------------------------------------------------------------------------------------------------


def test_unusable_files_are_refused_with_a_fix(authority: trustme.CA, files: Files, tmp_path: Path) -> None:
    other = issue(authority, tmp_path, "other")
    encrypted = tmp_path / "encrypted.key"
    key: Any = serialization.load_pem_private_key(files[1].read_bytes(), None)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    encrypted.write_bytes(key.private_bytes(*form, serialization.BestAvailableEncryption(b"x")))
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for options, message in [
        (("--tls-cert", files[0]), "needs --tls-key"),
        (("--tls-key", files[1]), "needs --tls-cert"),
        (("--tls-cert", tmp_path / "none", "--tls-key", files[1]), "No such file"),
        (("--tls-cert", files[0], "--tls-key", tmp_path), "Is a directory"),
        (("--tls-cert", files[1], "--tls-key", files[1]), "contains no certificate"),
        (("--tls-cert", files[0], "--tls-key", files[0]), "contains no private key"),
        (("--tls-cert", files[0], "--tls-key", other[1]), "does not belong to the certificate"),
        (("--tls-cert", files[0], "--tls-key", encrypted), "is encrypted"),
        (("--tls-cert", broken, "--tls-key", files[1]), "cannot be used"),
    ]:
        done = cli("serve", str(tmp_path), "--db", str(tmp_path / "db"), *map(str, options))
        assert done.returncode == 2, options
        assert message in done.stderr, options
        assert "Traceback" not in done.stderr


def test_a_certificate_that_was_renewed_is_used_without_a_restart(authority: trustme.CA, tmp_path: Path) -> None:
    from stepwell.local.http.tls import Certificate

    first = issue(authority, tmp_path)
    certificate = Certificate(*first)
    before = certificate.context
    certificate.renew()
    assert certificate.context is before
    other = issue(authority, tmp_path, "other")
    shutil.copy(other[0], first[0])
    certificate.renew()  # the key is not there yet
    assert certificate.context is before
    shutil.copy(other[1], first[1])
    certificate.renew()
    assert certificate.context is not before


# --- other clients ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")
def test_curl_speaks_both(server: Server, files: Files, authority: trustme.CA, tmp_path: Path) -> None:
    if "HTTP2" not in subprocess.run(["curl", "--version"], capture_output=True, text=True).stdout:
        pytest.skip("this curl does not speak HTTP/2")
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    key = server.key  # type: ignore[attr-defined]
    for option, version in (("--http2", "2"), ("--http1.1", "1.1")):
        argv = ["curl", "-s", "--cacert", ca, option, "-o", tmp_path / "answer", "-w", "%{http_version} %{http_code}"]
        argv += ["-d", '{"name": "go"}', "-H", f"Authorization: Bearer {key}", f"{server.url}/e"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20)
        assert done.stdout == f"{version} 200"
