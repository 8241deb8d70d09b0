"""What is asked of Amazon SNS: the certificates that its messages are signed with, and to confirm subscriptions.

One rule: addresses come from `core.webhooks.sns`, which lets through SNS's own alone; redirects are not followed, and
senders cannot make this ask often.
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

_MOST_KEPT = 256  # more than SNS has in all its regions
_MOST_A_MINUTE = 30
_LARGEST = 64 * 1024
_WITHIN_S = 5.0
_LATER = {"retry-after": "30"}


class Certificates:
    """Public keys by the address of their certificate, which SNS never gives to another. Safe in any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._keys: dict[str, PublicKey] = {}
        self._asked: deque[float] = deque(maxlen=_MOST_A_MINUTE)

    def key(self, url: str) -> PublicKey | None:
        """None if it has to be fetched."""
        return self._keys.get(url)

    def fetch(self, url: str) -> PublicKey:
        """Waits for the network. Raises Problem 503."""
        try:
            key = public_key(self._ask(url))
        except BadCertificate as error:
            log.error("%s: %s", url, error)
            raise Problem(503, "the certificate of the message cannot be read", _LATER) from None
        with self._lock:
            if len(self._keys) >= _MOST_KEPT:
                del self._keys[next(iter(self._keys))]
            self._keys[url] = key
        return key

    def confirm(self, url: str) -> None:
        """Confirms a subscription; waits for the network. Raises Problem 503."""
        self._ask(url)
        log.info("a subscription to SNS is confirmed: %s", url.partition("&Token=")[0])

    def _ask(self, url: str) -> bytes:
        import httpx

        from stepwell.outbound import Transport, tls_problem

        with self._lock:
            now = self._clock()
            if len(self._asked) == _MOST_A_MINUTE and now - self._asked[0] < 60:
                raise Problem(503, "SNS is asked for too many certificates now; send it again later", _LATER)
            self._asked.append(now)
        try:
            with (
                httpx.Client(transport=Transport(), timeout=_WITHIN_S, follow_redirects=False) as client,
                client.stream("GET", url) as answer,
            ):
                content = b""
                for piece in answer.iter_bytes():
                    content += piece
                    if len(content) > _LARGEST:
                        raise httpx.HTTPError("it answers too much")
                if answer.status_code != 200:
                    raise httpx.HTTPError(f"it answers {answer.status_code}")
                return content
        except httpx.HTTPError as error:
            log.error("%s cannot be asked: %s", url.partition("?")[0], tls_problem(error, url) or error)
            raise Problem(503, "Amazon SNS cannot be asked now; send it again later", _LATER) from None
