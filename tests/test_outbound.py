"""Requests that Stepwell makes, with proxies and certificates from the environment."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from stepwell.outbound import BadEnvironment, Transport, _proxy, tls_problem

NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUEST_METHOD")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, *_: object) -> None: ...


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None: ...


def serving(context: ssl.SSLContext | None = None) -> Iterator[str]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http{'s' if context else ''}://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def plain() -> Iterator[str]:
    yield from serving()


def certified(folder: Path, *, days: int = 1, address: str = "127.0.0.1") -> Iterator[str]:
    """A server with a self-signed certificate, which is in `cert.pem` and expires after this many days."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    end = datetime.now(UTC) + timedelta(days=days)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(end - timedelta(days=9 if days < 0 else days + 1))
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, of_key = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, of_key, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    yield from serving(context)


def get(url: str) -> str:
    with httpx.Client(transport=Transport()) as client:
        return client.get(url).text


# --- proxies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("proxy", ["socks://127.0.0.1:1", "socks5://127.0.0.1:1", "junk://x", "::::", "http://", " "])
@pytest.mark.parametrize("variable", ["ALL_PROXY", "http_proxy"])
def test_an_unusable_no_proxy_does_not_affect_other_requests(
    environment: pytest.MonkeyPatch, plain: str, variable: str, proxy: str
) -> None:
    environment.setenv(variable, proxy)
    assert get(f"{plain}/a") == "/a"  # this machine is reached without the proxy
    environment.setenv("NO_PROXY", "example.com")
    assert _proxy(httpx.URL("http://a.example.com")) == (None, "")


@pytest.mark.parametrize(
    ("variable", "proxy", "text"),
    [
        ("ALL_PROXY", "socks://u:hush@h:1", "ALL_PROXY=socks://h:1 is not a valid proxy; write it as http://"),
        (
            "all_proxy",
            "socks5://h:1",
            "all_proxy=socks5://h:1 is a SOCKS proxy, which needs a library; run: pip install",
        ),
        ("HTTP_PROXY", "junk://u:hush@h", "HTTP_PROXY=junk://h is not a valid proxy"),
        ("HTTP_PROXY", "http://:::", "HTTP_PROXY=http://::: is not a valid proxy"),
        ("http_proxy", "127.0.0.1:1", "no connection through the proxy of http_proxy=http://127.0.0.1:1: "),
        ("HTTP_PROXY", "http://u:hush@127.0.0.1:1", "the proxy of HTTP_PROXY=http://127.0.0.1:1: "),
    ],
)
def test_an_unusable_proxy_is_reported_with_its_variable(
    environment: pytest.MonkeyPatch, variable: str, proxy: str, text: str
) -> None:
    environment.setenv(variable, proxy)
    with pytest.raises(BadEnvironment) as bad:
        get("http://stepwell.example")
    assert text in str(bad.value)
    assert "hush" not in str(bad.value)
    assert "\n" not in str(bad.value)


def test_requests_to_other_hosts_go_through_the_proxy(environment: pytest.MonkeyPatch, plain: str) -> None:
    environment.setenv("HTTP_PROXY", plain)
    assert get("http://stepwell.example/a") == "http://stepwell.example/a"


@pytest.mark.parametrize(
    ("no_proxy", "url", "is_direct"),
    [
        ("example.com", "http://example.com", True),
        ("example.com", "http://a.EXAMPLE.com:81", True),
        ("example.com", "http://notexample.com", False),
        (".example.com", "http://a.example.com", True),
        ("*.example.com", "http://a.example.com", True),
        ("example.com:81", "http://example.com:81", True),
        ("example.com:81", "http://example.com", False),
        ("example.com:443", "https://example.com", True),
        ("10.0.0.0/8, 192.168.1.7", "http://10.2.3.4:99", True),
        ("10.0.0.0/8 192.168.1.7", "http://192.168.1.7", True),
        ("10.0.0.0/8", "http://11.0.0.1", False),
        ("10.0.0.1:80", "http://10.0.0.1", True),
        ("fd00::1", "http://[fd00::1]:8288", True),
        ("[fd00::1]:8288", "http://[fd00::1]:8288", True),
        ("[fd00::1]:8288", "http://[fd00::1]", False),
        ("fd00::/8", "http://[fd12::1]", True),
        ("*", "http://example.com", True),
        ("", "http://localhost:8288", True),
        ("", "http://127.1.2.3", True),
        ("", "http://[::1]:8288", True),
        ("", "http://example.com", False),
        (",, ,/,:", "http://example.com", False),
    ],
)
def test_hosts_in_no_proxy_are_reached_directly(
    environment: pytest.MonkeyPatch, no_proxy: str, url: str, is_direct: bool
) -> None:
    environment.setenv("ALL_PROXY", "http://proxy")
    environment.setenv("NO_PROXY", no_proxy)
    assert (_proxy(httpx.URL(url))[0] is None) is is_direct


# --- certificates ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_missing_certificates_are_reported_and_plain_http_needs_none(
    environment: pytest.MonkeyPatch, plain: str, tmp_path: Path, variable: str
) -> None:
    environment.setenv(variable, str(tmp_path / "gone"))
    assert get(f"{plain}/a") == "/a"
    with pytest.raises(BadEnvironment, match=f"{variable}=.*gone does not exist; correct or unset it"):
        get(plain.replace("http:", "https:"))


def test_a_file_without_certificates_is_reported(environment: pytest.MonkeyPatch, plain: str, tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_text("no certificate")
    environment.setenv("SSL_CERT_FILE", str(tmp_path / "c.pem"))
    with pytest.raises(BadEnvironment, match=r"SSL_CERT_FILE=.*c.pem cannot be read as certificates"):
        get(plain.replace("http:", "https:"))


def problem(url: str) -> str:
    with pytest.raises(httpx.TransportError) as failed:
        get(url)
    return tls_problem(failed.value, url) or ""


def test_an_untrusted_certificate_is_reported(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for url in certified(tmp_path):
        assert problem(url).startswith("the certificate of 127.0.0.1 is not trusted: it is self-signed; to trust it")
        environment.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        assert get(f"{url}/a") == "/a"


def test_an_expired_certificate_and_a_wrong_name_are_different_errors(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    for url in certified(tmp_path, days=-2):
        assert "has expired" in problem(url)
    for url in certified(tmp_path, address="10.0.0.1"):
        environment.setenv("SSL_CERT_DIR", "other")  # makes the next request read the certificates again
        assert "is for another name" in problem(url)


def test_a_server_without_tls_is_reported(plain: str) -> None:
    assert "should the address begin with http://?" in problem(plain.replace("http:", "https:"))
    assert tls_problem(httpx.ConnectError("x"), "https://a") is None
