"""Requests to Amazon SNS: fetches the certificates that verify messages, and confirms subscriptions.

URLs come from `core.webhooks.sns`, which accepts only URLs of SNS. Redirects are not followed, and the rate is limited,
so that senders cannot abuse this server to send requests.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from stepwell.api.http.problem import Problem
from stepwell.core.webhooks.rsa import BadCertificate, PublicKey, public_key

log = logging.getLogger("stepwell.webhooks")

_MAX_CACHED = 256  # more than SNS has in all regions together
_MAX_A_MINUTE = 30
_MAX_BYTES = 64 * 1024
_TIMEOUT_S = 5.0
_RETRY_AFTER = {"retry-after": "30"}


class Certificates:
    """Public keys by the URL of the certificate. SNS never reuses a URL, so keys are cached. Safe in any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._keys: dict[str, PublicKey] = {}
        self._request_times: deque[float] = deque(maxlen=_MAX_A_MINUTE)

    def key(self, url: str) -> PublicKey | None:
        """The cached key; None if it must be fetched."""
        return self._keys.get(url)

    def fetch(self, url: str) -> PublicKey:
        """Fetches and caches a key; waits for the network. Raises Problem 503."""
        try:
            key = public_key(self._get(url))
        except BadCertificate as error:
            log.error("cannot read the certificate of SNS at %s: %s", url, error)
            raise Problem(503, "the certificate of the message cannot be read", _RETRY_AFTER) from None
        with self._lock:
            if len(self._keys) >= _MAX_CACHED:
                del self._keys[next(iter(self._keys))]
            self._keys[url] = key
        return key

    def confirm(self, url: str) -> None:
        """Confirms a subscription; waits for the network. Raises Problem 503."""
        self._get(url)
        log.info("confirmed a subscription to SNS: %s", url.partition("&Token=")[0])

    def _get(self, url: str) -> bytes:
        import httpx

        from stepwell.outbound import Transport, tls_problem

        with self._lock:
            now = self._clock()
            if len(self._request_times) == _MAX_A_MINUTE and now - self._request_times[0] < 60:
                raise Problem(503, "too many requests to Amazon SNS in a minute; try again later", _RETRY_AFTER)
            self._request_times.append(now)
        try:
            with (
                httpx.Client(transport=Transport(), timeout=_TIMEOUT_S, follow_redirects=False) as client,
                client.stream("GET", url) as answer,
            ):
                content = b""
                for piece in answer.iter_bytes():
                    content += piece
                    if len(content) > _MAX_BYTES:
                        raise httpx.HTTPError("the response is too large")
                if answer.status_code != 200:
                    raise httpx.HTTPError(f"the response has status {answer.status_code}")
                return content
        except httpx.HTTPError as error:
            log.error("request to %s failed: %s", url.partition("?")[0], tls_problem(error, url) or error)
            raise Problem(503, "Amazon SNS cannot be reached; try again later", _RETRY_AFTER) from None
