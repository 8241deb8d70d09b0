"""TLS for the server: the certificate, and a listener that hands connections over after the handshake."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stepwell.api.http.problem import CONTENT_TYPE, Problem
from stepwell.local.http.connection_limit import make_room
from stepwell.local.http.rate_limit import Allowance

log = logging.getLogger("stepwell.http")

_HANDSHAKE_S = 10.0
_GOODBYE_S = 5.0
_ACCEPT_AGAIN_S = 0.1  # delay when there are no free descriptors
_PLAIN_BODY = Problem(400, "this port uses HTTPS: request https:// instead of http://").body()
_PLAIN_RESPONSE = b"HTTP/1.1 400 Bad Request\r\ncontent-type: %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"


class BadCertificate(Exception):
    """The files of --tls-cert and --tls-key cannot be used. The message contains the reason and what to do."""


class Certificate:
    """The certificate from two files. `context` is for new connections. Raises BadCertificate."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = certificate, key
        self._states = self._file_states()
        self.context = _context(certificate, key)

    def renew(self) -> None:
        """Reads the files again if they have changed. If they do not match, the old certificate stays in use."""
        try:
            states = self._file_states()
            if states == self._states:
                return
            self.context = _context(*self._files)
            self._states = states
        except BadCertificate as error:
            log.warning("the certificate was not renewed: %s", error)
        else:
            log.info("the certificate was renewed")

    def _file_states(self) -> tuple[tuple[int, int], ...]:
        return tuple((_stat(file).st_mtime_ns, _stat(file).st_ino) for file in self._files)


def _stat(file: Path) -> os.stat_result:
    try:
        return file.stat()
    except OSError as error:
        raise BadCertificate(f"cannot read {file}: {error.strerror}") from None


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    if "-----BEGIN CERTIFICATE-----" not in _text(certificate):
        raise BadCertificate(f"{certificate} contains no certificate in PEM format (-----BEGIN CERTIFICATE-----)")
    secret = _text(key)
    if "PRIVATE KEY-----" not in secret:
        raise BadCertificate(f"{key} contains no private key in PEM format (-----BEGIN PRIVATE KEY-----)")
    if "ENCRYPTED" in secret:
        cure = f"write it without a password: openssl pkey -in {key} -out FILE"
        raise BadCertificate(f"the key {key} is encrypted, and a server cannot ask for the password; {cure}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            why = "the server's own certificate must come first in the file"
            raise BadCertificate(f"the key {key} does not belong to the certificate {certificate}; {why}") from None
        raise BadCertificate(f"{certificate} and {key} cannot be used: {error.reason or error}") from None
    return context


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("latin-1")
    except OSError as error:
        raise BadCertificate(f"cannot read {file}: {error.strerror}") from None


class TlsListener:
    """Accepts connections, like the result of `loop.create_server`. `make` makes the protocol of a client. A failed
    handshake is one line in the log."""

    def __init__(
        self,
        listener: socket.socket,
        certificate: Certificate,
        make: Callable[[], asyncio.Protocol],
        connections: set[Any],
    ) -> None:
        listener.setblocking(False)
        self._listener, self._certificate, self._make, self._connections = listener, certificate, make, connections
        self._loop = asyncio.get_running_loop()
        self._lines = Allowance(self._loop.time, burst=20, per_s=1)
        self._accepting = self._loop.create_task(self._accept())

    def close(self) -> None:
        self._accepting.cancel()

    async def wait_closed(self) -> None:
        await asyncio.gather(self._accepting, return_exceptions=True)

    async def _accept(self) -> None:
        while True:
            try:
                client, address = await self._loop.sock_accept(self._listener)
            except OSError as error:
                log.warning("cannot accept a connection: %s", error.strerror)
                await asyncio.sleep(_ACCEPT_AGAIN_S)
                continue
            handshake = _Handshake(self._loop.time() + _HANDSHAKE_S)
            self._connections.add(handshake)
            make_room(self._connections, handshake)
            handshake.task = self._loop.create_task(self._encrypt(client, address[0], handshake))

    async def _encrypt(self, client: socket.socket, address: str, handshake: _Handshake) -> None:
        plain = client.dup()  # a failed handshake closes the accepted socket
        try:
            await self._loop.connect_accepted_socket(
                self._make,
                client,
                ssl=self._certificate.context,
                ssl_handshake_timeout=_HANDSHAKE_S,
                ssl_shutdown_timeout=_GOODBYE_S,
            )
        except (OSError, asyncio.CancelledError) as error:
            client.close()
            if getattr(error, "reason", None) in ("HTTP_REQUEST", "HTTPS_PROXY_REQUEST"):
                self._explain_https(plain)
            self._log(address, error)
        except Exception:
            client.close()
            log.exception("TLS handshake with %s failed", address)
        finally:
            plain.close()
            self._connections.discard(handshake)

    def _log(self, address: str, error: BaseException) -> None:
        """Logs a failed handshake. A closed connection is not logged: load balancers check ports that way."""
        if isinstance(error, OSError) and not isinstance(error, ConnectionResetError) and self._lines.take():
            log.warning("TLS handshake with %s failed: %s", address, _why(error))

    def _explain_https(self, client: socket.socket) -> None:
        try:
            client.setblocking(False)
            client.send(_PLAIN_RESPONSE % (CONTENT_TYPE.encode(), len(_PLAIN_BODY), _PLAIN_BODY))
            client.shutdown(socket.SHUT_WR)
        except OSError:
            pass


class _Handshake:
    """A client before the end of the handshake."""

    task: asyncio.Task[None] | None = None

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline

    def give_way(self) -> None:
        if self.task is not None:
            self.task.cancel()

    shutdown = give_way

    def sweep(self, now: float) -> None:
        """Does nothing: the handshake has its own timeout."""


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return error.strerror or str(error) or type(error).__name__
