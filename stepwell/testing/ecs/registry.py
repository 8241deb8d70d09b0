"""A container registry in memory, for tests: accepts what docker and podman push, and serves it.

The protocol is OCI's distribution specification, 1.1: https://github.com/opencontainers/distribution-spec
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

_PATH = re.compile(r"/v2/(?P<repository>.+)/(?P<kind>manifests|blobs)/(?P<name>[^/]*|uploads/.*)")
_CHUNK = re.compile(rb"([0-9a-fA-F]+)")


class Registry:
    """`host` is the first part of the names of all images. `wants_token`: clients must fetch a token, which all get."""

    def __init__(self, *, wants_token: bool = False) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}  # by repository and version: type and content
        self.uploads: dict[str, bytes] = {}
        self.pushes = 0
        self.token = uuid.uuid4().hex if wants_token else None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"registry": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def put_manifest(self, repository: str, version: str, media_type: str, content: bytes) -> str:
        """Stores a manifest under the version and under the digest. Returns the digest."""
        digest = digest_of(content)
        for name in (version, digest):
            self.manifests[repository, name] = (media_type, content)
        return digest


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class _Handler(BaseHTTPRequestHandler):
    registry: Registry
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/token":
            self._answer(200, b'{"token": "%b"}' % (self.registry.token or "").encode())
        elif self._is_welcome():
            self._show(url.path)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _show(self, path: str) -> None:
        match = _PATH.fullmatch(path)
        if match is None:
            self._answer(200 if path == "/v2/" else 404)
            return
        if match["kind"] == "blobs":
            media_type, content = "application/octet-stream", self.registry.blobs.get(match["name"])
        else:
            found = self.registry.manifests.get((match["repository"], match["name"]))
            media_type, content = found or ("", None)
        if content is None:
            kind = match["kind"].removesuffix("s")
            error = {"code": f"{kind.upper()}_UNKNOWN", "message": f"{kind} unknown"}
            self._answer(404, json.dumps({"errors": [error]}).encode(), {"Content-Type": "application/json"})
        else:
            self._answer(200, content, {"Content-Type": media_type, "Docker-Content-Digest": digest_of(content)})

    def do_POST(self) -> None:
        self._body()
        upload = uuid.uuid4().hex
        self.registry.uploads[upload] = b""
        self._answer(202, b"", {"Location": f"{urlsplit(self.path).path.rstrip('/')}/{upload}"})

    def do_PATCH(self) -> None:
        path = urlsplit(self.path).path
        upload = path.rpartition("/")[2]
        self.registry.uploads[upload] += self._body()
        self._answer(202, b"", {"Location": path, "Range": f"0-{len(self.registry.uploads[upload]) - 1}"})

    def do_PUT(self) -> None:
        url = urlsplit(self.path)
        match = _PATH.fullmatch(url.path)
        assert match is not None
        content = self._body()
        if match["kind"] == "manifests":
            self.registry.pushes += 1
            media_type = self.headers["Content-Type"]
            digest = self.registry.put_manifest(match["repository"], match["name"], media_type, content)
        else:
            content = self.registry.uploads.pop(url.path.rpartition("/")[2]) + content
            digest = parse_qs(url.query)["digest"][0]
            assert digest_of(content) == digest
            self.registry.blobs[digest] = content
        self._answer(201, b"", {"Location": url.path, "Docker-Content-Digest": digest})

    def _is_welcome(self) -> bool:
        token = self.registry.token
        if token is None or self.headers.get("Authorization") == f"Bearer {token}":
            return True
        realm = f"http://{self.registry.host}/token"
        self._answer(401, b"", {"WWW-Authenticate": f'Bearer realm="{realm}",service="test",scope="pull"'})
        return False

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while (match := _CHUNK.match(self.rfile.readline())) and (size := int(match[1], 16)):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _answer(self, status: int, content: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Docker-Distribution-Api-Version": "registry/2.0", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None: ...
