"""Simulates Amazon SNS for tests: a host with a certificate, which confirms subscriptions, and signed messages.

Like the real SNS, it is reached over https by its own name, through a proxy that accepts no other host. Messages are
signed with the library `cryptography`, which shares no code with the verification.
"""

from __future__ import annotations

import base64
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

HOST = "sns.eu-west-1.amazonaws.com"
TOPIC = "arn:aws:sns:eu-west-1:123456789012:orders"
_FIELDS = ("Message", "MessageId", "SubscribeURL", "Subject", "Timestamp", "Token", "TopicArn", "Type")

Json = dict[str, Any]


def certificate(key: rsa.RSAPrivateKey, host: str) -> bytes:
    """A self-signed certificate in PEM."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))  # OpenSSL uses the real time, while tests stop the clock
        .not_valid_after(datetime(2099, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM)


class SnsHost(ThreadingHTTPServer):
    """`asked`: the hosts and paths that were requested."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.key = rsa.generate_private_key(65537, 2048)
        self.certificate = certificate(self.key, "sns.amazonaws.com")
        self.certificate_url = f"https://{HOST}/SimpleNotificationService-{uuid4().hex}.pem"
        self.asked: list[tuple[str, str]] = []
        self.status = 200
        of_host = rsa.generate_private_key(65537, 2048)
        (folder / "host.pem").write_bytes(certificate(of_host, HOST))
        (folder / "host.key").write_bytes(of_host.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(folder / "host.pem", folder / "host.key")

    def handle_error(self, *_: object) -> None: ...

    def message(self, kind: str = "Notification", version: str = "2", **fields: str) -> Json:
        """A signed message."""
        values: Json = {
            "Type": kind,
            "MessageId": uuid4().hex,
            "TopicArn": TOPIC,
            "Message": '{"order": 7}',
            "Timestamp": "2026-06-01T10:00:00.000Z",
            "SignatureVersion": version,
            "SigningCertURL": self.certificate_url,
        }
        if kind != "Notification":
            values |= {
                "Token": "2336",
                "SubscribeURL": f"https://{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=2336",
            }
        return self.sign(values | fields)

    def sign(self, message: Json) -> Json:
        text = "".join(f"{name}\n{message[name]}\n" for name in _FIELDS if name in message)
        digest = hashes.SHA1() if message["SignatureVersion"] == "1" else hashes.SHA256()
        signature = self.key.sign(text.encode(), padding.PKCS1v15(), digest)
        return {**message, "Signature": base64.b64encode(signature).decode()}


class _Handler(BaseHTTPRequestHandler):
    server: SnsHost
    protocol_version = "HTTP/1.1"

    def do_CONNECT(self) -> None:
        self.server.asked.append((self.path, ""))
        if self.path != f"{HOST}:443":
            self.send_error(502)
            return
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        with (
            self.server.tls.wrap_socket(self.connection, server_side=True) as connection,
            connection.makefile("rb") as self.rfile,
            connection.makefile("wb") as self.wfile,
        ):
            self.handle_one_request()

    def do_GET(self) -> None:
        self.server.asked.append((self.headers["host"], self.path))
        content = self.server.certificate if self.path.endswith(".pem") else b"<ConfirmSubscriptionResponse/>"
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(content)))
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def sns_host(folder: Path, environment: pytest.MonkeyPatch) -> Iterator[SnsHost]:
    with SnsHost(folder) as host:
        thread = threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        environment.setenv("HTTPS_PROXY", f"http://127.0.0.1:{host.server_address[1]}")
        environment.setenv("SSL_CERT_FILE", str(folder / "host.pem"))
        yield host
        host.shutdown()
        thread.join()
