"""Tokens of attempts: who can show one was given the attempt's input, so that its outcome may be believed. Nobody is
given those of ticks, wakes and requests to cancel runs: only the engine can show one.

A token is a signature (`core.signing`) of run, step and attempt by the environment's signing keys. SSM answers 40
requests a second in an account and region, so a process reads the keys once and again minutes later. One rule: a token
is refused only if the keys were read after it can have been made; until then its message comes again.
https://docs.aws.amazon.com/general/latest/gr/ssm.html
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
    """Implements `core.signing.Signer`. May be used from several threads; `clock` counts seconds."""

    def __init__(self, resources: Resources, clock: Callable[[], float] = time.monotonic) -> None:
        self._env, self._clock = resources.env, clock
        self._cache_s, self._again_s = resources.signing_keys_cache_s, resources.signing_keys_again_s
        self._lock = threading.Lock()  # one thread reads for all
        self._keys: SigningKeys | None = None
        self._read_at = self._until = 0.0

    def of(self, run_id: str, step_id: str, attempt: int) -> str:
        return self.sign(_text(run_id, step_id, attempt))

    def is_valid(self, token: object, run_id: str, step_id: str, attempt: int) -> bool:
        """Raises KeysUnreadable, UnknownKey: then the message that brought it must come again."""
        return isinstance(token, str) and self.is_signature(token, _text(run_id, step_id, attempt))

    def require(self) -> None:
        """Have the keys at hand before something is begun that cannot be ended without them. Raises KeysUnreadable."""
        self._current()

    def sign(self, text: bytes, key: str | None = None) -> str:
        return self._current().sign(text, key)

    def is_signature(self, signature: str, text: bytes) -> bool:
        keys, key = self._current(), key_of(signature)
        if key and key not in keys.secrets:
            keys = self._read_for(key)
        return keys.is_signature(signature, text)

    def _current(self) -> SigningKeys:
        """Those that are known stay in use while they cannot be read again: keys change rarely."""
        with self._lock:
            if self._keys is None:
                return self._read()
            if self._clock() >= self._until:
                try:
                    return self._read()
                except KeysUnreadable as error:
                    log.warning("the signing keys stay as they were: %s", error)
                    self._until = self._clock() + self._again_s
            return self._keys

    def _read_for(self, key: str) -> SigningKeys:
        """The keys, read again for one that is not known here: at most once in a while, whatever signatures come."""
        with self._lock:
            if self._keys is not None and key in self._keys.secrets:  # another thread has read them meanwhile
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
        self._until = self._read_at + self._cache_s * random.uniform(0.5, 1)  # many sandboxes began at one moment
        return self._keys


def _text(run_id: str, step_id: str, attempt: int) -> bytes:
    return f"{run_id}/{step_id}/{attempt}".encode()
