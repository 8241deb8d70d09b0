"""The tokens that authenticate messages to the engine: outcomes of attempts, ticks, wake-ups and cancel requests.

A token is a signature (`core.signing`) of run, step and attempt by the environment's signing keys. An attempt's token
is in the attempt's input, so whoever has the token has received the input. The other tokens never leave the engine.

SSM allows 40 requests a second in an account and region, so a process caches the keys for some minutes
(https://docs.aws.amazon.com/general/latest/gr/ssm.html). A token of an unknown key is not rejected before the keys are
read again, since the key may be new. Until then the message is redelivered.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

from botocore.exceptions import BotoCoreError, ClientError

from stepwell.aws.clients import client
from stepwell.aws.resources import Resources
from stepwell.aws.signing.signing_keys import NoKeys, read_keys
from stepwell.core.signing import KeysUnreadable, SigningKeys, UnknownKey, key_of

log = logging.getLogger("stepwell.aws")


class Tokens:
    """Implements `core.signing.Signer`. Thread-safe. `clock`: seconds."""

    def __init__(self, resources: Resources, clock: Callable[[], float] = time.monotonic) -> None:
        self._env, self._clock = resources.env, clock
        self._cache_s, self._again_s = resources.signing_keys_cache_s, resources.signing_keys_again_s
        self._lock = threading.Lock()  # one thread reads the keys, the others wait for it
        self._keys: SigningKeys | None = None
        self._read_at = self._until = 0.0

    def of(self, run_id: str, step_id: str, attempt: int) -> str:
        return self.sign(_text(run_id, step_id, attempt))

    def is_valid(self, token: object, run_id: str, step_id: str, attempt: int) -> bool:
        """Whether the token is that of this attempt. Raises KeysUnreadable, UnknownKey: redeliver the message then."""
        return isinstance(token, str) and self.is_signature(token, _text(run_id, step_id, attempt))

    def require(self) -> None:
        """Reads the keys if needed. For work that should not begin unless it can sign. Raises KeysUnreadable."""
        self._current()

    def sign(self, text: bytes, key: str | None = None) -> str:
        return self._current().sign(text, key)

    def is_signature(self, signature: str, text: bytes) -> bool:
        keys, key = self._current(), key_of(signature)
        if key and key not in keys.secrets:
            keys = self._read_for(key)
        return keys.is_signature(signature, text)

    def _current(self) -> SigningKeys:
        """The keys, read again if the cache has expired. If that fails, the cached keys stay in use: they change
        rarely. Raises KeysUnreadable if there are none."""
        with self._lock:
            if self._keys is None:
                return self._read()
            if self._clock() >= self._until:
                try:
                    return self._read()
                except KeysUnreadable as error:
                    log.warning("signing keys not refreshed, the cached keys stay in use: %s", error)
                    self._until = self._clock() + self._again_s
            return self._keys

    def _read_for(self, key: str) -> SigningKeys:
        """The keys, read again because a signature names an unknown one.

        Raises UnknownKey if the keys were read within the last `signing_keys_again_s`: forged signatures must not
        cause requests to SSM.
        """
        with self._lock:
            if self._keys is not None and key in self._keys.secrets:  # another thread has just read them
                return self._keys
            if self._clock() < self._read_at + self._again_s:
                raise UnknownKey(key)
            return self._read()

    def _read(self) -> SigningKeys:
        self._read_at = self._clock()
        try:
            self._keys = read_keys(client("ssm"), self._env).signing_keys(time.time_ns() // 1_000_000)
        except (BotoCoreError, ClientError, NoKeys) as error:
            raise KeysUnreadable(f"the signing keys cannot be read: {error}") from error
        self._until = self._read_at + self._cache_s * random.uniform(0.5, 1)  # many sandboxes start at the same time
        return self._keys


def _text(run_id: str, step_id: str, attempt: int) -> bytes:
    return f"{run_id}/{step_id}/{attempt}".encode()
