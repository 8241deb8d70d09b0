"""HTTP transports that use the proxy and certificate variables of the environment.

httpx reads these variables when a client is created, and raises for any that is wrong, even if no request needs it.
These transports read a variable only for a request that needs it, and name the variable in the error.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import getproxies_environment

import certifi
import httpx

from stepwell.extras import is_installed

_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")
_SELF_SIGNED, _SELF_SIGNED_CHAIN, _NO_ISSUER = 18, 19, 20
_NOT_YET, _EXPIRED = 9, 10
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST")
_OTHER_NAME, _OTHER_ADDRESS = 62, 64  # OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH


class BadEnvironment(httpx.TransportError):
    """An environment variable that a request needs is wrong. The message names it and what to do."""


class _Route(NamedTuple):
    """The route of requests to an address. `proxy` is the URL of the proxy, or None."""

    uses_tls: bool
    proxy: str | None = None
    variable: str = ""  # the variable with the proxy


class Transport(httpx.BaseTransport):
    """Sends each request according to the environment. `options` are those of httpx.HTTPTransport."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._transports: dict[_Route, httpx.HTTPTransport] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        route = _route(request.url)
        transport = self._transports.get(route)
        if transport is None:
            transport = self._transports[route] = httpx.HTTPTransport(**_options(route), **self._options)
        try:
            return transport.handle_request(request)
        except httpx.TransportError as error:
            if reason := _proxy_problem(error, route):
                raise BadEnvironment(reason) from error
            raise

    def close(self) -> None:
        for transport in self._transports.values():
            transport.close()


class AsyncTransport(httpx.AsyncBaseTransport):
    """Does the same as `Transport`, for httpx.AsyncClient."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._transports: dict[_Route, httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        route = _route(request.url)
        transport = self._transports.get(route)
        if transport is None:
            transport = self._transports[route] = httpx.AsyncHTTPTransport(**_options(route), **self._options)
        try:
            return await transport.handle_async_request(request)
        except httpx.TransportError as error:
            if reason := _proxy_problem(error, route):
                raise BadEnvironment(reason) from error
            raise

    async def aclose(self) -> None:
        for transport in self._transports.values():
            await transport.aclose()


def tls_problem(error: BaseException, url: str) -> str | None:
    """The reason why TLS with an address failed, and what to do; None if TLS is not the reason of the error."""
    tls_error = next((cause for cause in _causes(error) if isinstance(cause, ssl.SSLError)), None)
    if tls_error is None:
        return None
    host = httpx.URL(url).host
    if not isinstance(tls_error, ssl.SSLCertVerificationError):
        reason = (tls_error.reason or str(tls_error)).lower().replace("_", " ")
        advice = "; should the address begin with http://?" if tls_error.reason in _NO_TLS else ""
        return f"{host} answers, but not with TLS ({reason}){advice}"
    match tls_error.verify_code:
        case code if code == _EXPIRED:
            return f"the certificate of {host} has expired; renew it, or correct this machine's clock"
        case code if code == _NOT_YET:
            return f"the certificate of {host} is not valid yet; check this machine's clock"
        case code if code in (_OTHER_NAME, _OTHER_ADDRESS):
            return f"the certificate of {host} is for another name; use the name in the certificate"
    reason = {
        _SELF_SIGNED: "it is self-signed",
        _SELF_SIGNED_CHAIN: "the issuer's certificate is self-signed",
        _NO_ISSUER: "the issuer is unknown",
    }.get(tls_error.verify_code, tls_error.verify_message)
    return (
        f"the certificate of {host} is not trusted: {reason}; to trust it, set SSL_CERT_FILE to a PEM file with the "
        "issuer's certificate"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _route(url: httpx.URL) -> _Route:
    uses_tls = url.scheme == "https"
    proxy, variable = _proxy(url)
    if proxy is None:
        return _Route(uses_tls)
    return _Route(uses_tls or proxy.startswith("https:"), proxy, variable)


def _proxy(url: httpx.URL) -> tuple[str | None, str]:
    """The proxy for an address, and the variable that sets it."""
    proxies = getproxies_environment()
    kind = next((name for name in (url.scheme, "all") if proxies.get(name)), None)
    if kind is None or _is_direct(url, proxies.get("no", "")):
        return None, ""
    proxy = proxies[kind].strip()
    name = f"{kind}_proxy"
    return (proxy if "://" in proxy else f"http://{proxy}"), name if os.environ.get(name) else name.upper()


def _is_direct(url: httpx.URL, no_proxy: str) -> bool:
    """Whether requests use no proxy: for addresses of this machine, and for what NO_PROXY lists.

    NO_PROXY lists host names (with their subdomains), addresses, and networks such as 10.0.0.0/8, each with or without
    a port; or `*`.
    """
    host = url.host.lower().rstrip(".")
    address = _address(host)
    if host == "localhost" or host.endswith(".localhost") or (address is not None and address.is_loopback):
        return True
    port = url.port or {"https": 443}.get(url.scheme, 80)
    return any(_lists(entry, host, address, port) for entry in no_proxy.lower().replace(",", " ").split())


def _lists(entry: str, host: str, address: Any, port: int) -> bool:
    entry = entry.rpartition("://")[2]
    name, colon, number = entry.rpartition(":")
    if colon and number.isdecimal() and (":" not in name or name.endswith("]")):
        if int(number) != port:
            return False
        entry = name
    entry = entry.strip("[]").rstrip(".")
    if entry == "*":
        return True
    if address is not None:
        try:
            return address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name = entry.removeprefix("*").lstrip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _options(route: _Route) -> dict[str, Any]:
    """The options of a transport for this route. Raises BadEnvironment."""
    tls = _trusted() if route.uses_tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # required, but not used
    if route.proxy is None:
        return {"verify": tls, "trust_env": False}
    try:
        url = httpx.URL(route.proxy)
        if url.scheme not in _PROXY_SCHEMES or not url.host:
            raise ValueError
        if url.scheme.startswith("socks") and not is_installed("socksio"):
            raise ImportError
        proxy = httpx.Proxy(url, ssl_context=tls if url.scheme == "https" else None)
    except ImportError:
        advice = "run: pip install 'httpx[socks]', or unset it"
        raise BadEnvironment(f"{_named(route)} is a SOCKS proxy, which needs a library; {advice}") from None
    except (httpx.InvalidURL, ValueError):
        advice = "write it as http://HOST:PORT, or unset it"
        raise BadEnvironment(f"{_named(route)} is not a valid proxy; {advice}") from None
    return {"verify": tls, "trust_env": False, "proxy": proxy}


def _proxy_problem(error: httpx.TransportError, route: _Route) -> str | None:
    """The message for a proxy that does not answer, with the variable; None if the error has another reason."""
    if route.proxy is None or any(isinstance(cause, ssl.SSLError) for cause in _causes(error)):
        return None
    if not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
        return None
    reason = str(error) or type(error).__name__
    advice = "correct or unset it, or list the host in NO_PROXY"
    return f"no connection through the proxy of {_named(route)}: {reason}; {advice}"


def _named(route: _Route) -> str:
    """The variable with the value, without a password."""
    scheme, _, rest = (route.proxy or "").partition("://")
    return f"{route.variable}={scheme}://{rest.rpartition('@')[2]}"


def _trusted() -> ssl.SSLContext:
    """A TLS context with the trusted certificates of the environment. Raises BadEnvironment."""
    return _trusting(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@cache
def _trusting(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Cached, because creating a context takes about 20 ms."""
    if not file and not folder:
        return ssl.create_default_context(cafile=certifi.where())
    named = f"SSL_CERT_FILE={file}" if file else f"SSL_CERT_DIR={folder}"
    if not (Path(file).is_file() if file else Path(folder or "").is_dir()):
        raise BadEnvironment(f"{named} does not exist; correct or unset it")
    try:
        return ssl.create_default_context(cafile=file) if file else ssl.create_default_context(capath=folder)
    except OSError as error:  # includes ssl.SSLError
        raise BadEnvironment(f"{named} cannot be read as certificates ({error}); correct or unset it") from None
