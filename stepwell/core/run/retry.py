"""Computes the delay before a retry: exponential backoff with jitter, as a pure function."""

from __future__ import annotations

import hashlib

from stepwell.core.plan import Retries


def retry_delay_ms(retries: Retries, failures: int, seed: str) -> int:
    """Milliseconds until the next attempt after the `failures`-th failure (from 1).

    The delay is `initial * factor^(failures-1)`, at most `max`, then changed by up to `jitter` (a fraction) in either
    direction. The jitter comes from a hash of `seed`, so that folding the same fact twice gives the same delay.
    """
    delay = float(retries.initial_ms)
    for _ in range(failures - 1):  # a loop and not a power, to stop at the maximum before an overflow
        delay *= retries.factor
        if delay >= retries.max_ms:
            break
    fraction = int.from_bytes(hashlib.blake2b(seed.encode(), digest_size=8).digest()) / 2**64
    return round(min(delay, retries.max_ms) * (1 + retries.jitter * (2 * fraction - 1)))
