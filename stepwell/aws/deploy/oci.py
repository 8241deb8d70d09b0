"""Reads an image's configuration from a container registry, without pulling the image. Writes nothing.

The protocol is the OCI distribution specification, 1.1: https://github.com/opencontainers/distribution-spec. Tokens are
requested as the registry's `WWW-Authenticate` header describes.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Any

import httpx

from stepwell.aws.clients import client

_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_ECR = re.compile(r"\d{12}\.dkr\.ecr(-fips)?\.[a-z0-9-]+\.amazonaws\.com(\.cn)?")
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "arm64"}
_DOCKER_HUB = "registry-1.docker.io"


class Unreadable(Exception):
    """The image cannot be read from the registry. The message gives the reason."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An image's address. `version`: a tag, or a digest such as `sha256:...`."""

    host: str
    repository: str
    version: str

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parses an image's name as docker does. The default host is Docker Hub, the default tag `latest`."""
        rest, _, digest = text.partition("@")
        host, slash, path = rest.partition("/")
        if not slash or not (host == "localhost" or "." in host or ":" in host):
            host, path = _DOCKER_HUB, rest
        repository, colon, tag = path.rpartition(":")
        if not colon:
            repository, tag = path, "latest"
        if host in (_DOCKER_HUB, "docker.io", "index.docker.io"):
            host = _DOCKER_HUB
            repository = repository if "/" in repository else f"library/{repository}"
        return cls(host, repository, digest or tag)


@dataclass(frozen=True, slots=True)
class ImageConfig:
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    architecture: str  # x86_64, arm64, or an OCI name that Fargate does not support


def image_config(image: str) -> ImageConfig | None:
    """The image's program and architecture. None if the registry has no such image. Raises Unreadable."""
    reference = Reference.parse(image)
    with httpx.Client(timeout=20, follow_redirects=True, base_url=_base_url(reference.host)) as http:
        reader = _Reader(http, reference)
        try:
            return reader.config()
        except httpx.HTTPError as error:
            raise Unreadable(f"{reference.host} does not answer: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
            raise Unreadable(f"{reference.host} returned an invalid image description: {error!r}") from error


class _Reader:
    def __init__(self, http: httpx.Client, reference: Reference) -> None:
        self._http, self._reference = http, reference
        self._authorization = _ecr_authorization(reference.host)

    def config(self) -> ImageConfig | None:
        manifest = self._manifest(self._reference.version)
        if manifest is not None and "manifests" in manifest:
            manifest = self._manifest(_for_linux(manifest["manifests"])["digest"])
        if manifest is None:
            return None
        read = self._get("blobs", manifest["config"]["digest"])
        if read is None:
            return None
        config: dict[str, Any] = read.get("config") or {}
        entrypoint, command = config.get("Entrypoint") or (), config.get("Cmd") or ()
        architecture = read["architecture"]
        return ImageConfig(tuple(entrypoint), tuple(command), _ARCHITECTURES.get(architecture, architecture))

    def _manifest(self, version: str) -> dict[str, Any] | None:
        return self._get("manifests", version, {"Accept": ", ".join(_INDEXES + _MANIFESTS)})

    def _get(self, kind: str, version: str, headers: dict[str, str] | None = None) -> dict[str, Any] | None:
        path = f"/v2/{self._reference.repository}/{kind}/{version}"
        answer = self._http.get(path, headers={**(headers or {}), **self._authorization})
        if answer.status_code == 401 and not self._authorization:
            self._authorization = self._anonymous(answer.headers.get("WWW-Authenticate", ""))
            answer = self._http.get(path, headers={**(headers or {}), **self._authorization})
        if answer.status_code == 404:
            return None
        if answer.status_code in (401, 403):
            raise Unreadable(f"{self._reference.host} requires a login to read {self._reference.repository}")
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def _anonymous(self, challenge: str) -> dict[str, str]:
        """The header with an anonymous token, from the URL in the registry's challenge. Empty if there is none."""
        fields = dict(_CHALLENGE.findall(challenge))
        if not challenge.lower().startswith("bearer") or "realm" not in fields:
            return {}
        parameters = {name: fields[name] for name in ("service", "scope") if name in fields}
        answer = self._http.get(fields["realm"], params=parameters)
        if answer.status_code != 200:
            return {}
        token = answer.json()
        return {"Authorization": f"Bearer {token.get('token') or token['access_token']}"}


def registry_login(host: str) -> tuple[str, str]:
    """User and password for the account's ECR registry."""
    token = client("ecr").get_authorization_token()["authorizationData"][0]["authorizationToken"]
    user, _, password = base64.b64decode(token).decode().partition(":")
    return user, password


def is_ecr(host: str) -> bool:
    return _ECR.fullmatch(host) is not None


def _ecr_authorization(host: str) -> dict[str, str]:
    if not is_ecr(host):
        return {}
    user, password = registry_login(host)
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


def is_on_this_machine(host: str) -> bool:
    """Whether the registry is on localhost, where it uses plain HTTP."""
    return host.partition(":")[0] in ("localhost", "127.0.0.1")


def _base_url(host: str) -> str:
    return f"http://{host}" if is_on_this_machine(host) else f"https://{host}"


def _for_linux(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    """The manifest for Linux from the index of a multi-platform image; x86_64 is preferred, then arm64."""
    candidates = {
        manifest["platform"]["architecture"]: manifest
        for manifest in manifests
        if manifest.get("platform", {}).get("os") == "linux"
    }
    preferred = (candidates[name] for name in (*_ARCHITECTURES, *candidates) if name in candidates)
    return next(preferred)
