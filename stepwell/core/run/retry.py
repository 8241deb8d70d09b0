"""When a failed attempt is tried again: exponential backoff with jitter, as a pure function."""

from __future__ import annotations

import hashlib

from stepwell.core.plan import Retries


def retry_delay_ms(retries: Retries, failures: int, seed: str) -> int:
    """Milliseconds until the next attempt after the `failures`-th failure (from 1).

    `initial * factor^(failures-1)`, at most `max`, moved by up to `jitter` (a fraction) either way. The jitter comes
    from a hash of `seed`, so that deciding the same fact twice gives the same delay.
    """
    delay = float(retries.initial_ms)
    for _ in range(failures - 1):  # not a power: stops at the cap before it could overflow
        delay *= retries.factor
        if delay >= retries.max_ms:
            break
    fraction = int.from_bytes(hashlib.blake2b(seed.encode(), digest_size=8).digest()) / 2**64
    return round(min(delay, retries.max_ms) * (1 + retries.jitter * (2 * fraction - 1)))
