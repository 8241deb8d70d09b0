"""The password of the Faktory server: a client proves that it has it, without sending it.

The greeting contains a salt and a number of iterations, and the client answers with a hash of both and the password:
https://github.com/contribsys/faktory/blob/main/docs/protocol-specification.md ("Required Fields for Protected Server")
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass

ITERATIONS = 4000
_RENEW_S = 10.0


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a greeting asks for. `answer`: the hash that a client with the password sends."""

    salt: str
    iterations: int
    answer: str

    def is_met_by(self, pwdhash: str) -> bool:
        return hmac.compare_digest(pwdhash.encode(), self.answer.encode())


class Challenges:
    """Makes challenges. Clients that connect within ten seconds share one, so that many connections cost little, and
    an answer that somebody has seen on the network is soon useless."""

    def __init__(self, password: str, time: Callable[[], float]) -> None:
        self._password, self._time = password, time
        self._current: Challenge | None = None
        self._renew_at = 0.0

    def current(self) -> Challenge:
        if self._current is None or self._time() >= self._renew_at:
            salt = secrets.token_hex(8)
            self._current = Challenge(salt, ITERATIONS, password_hash(self._password, salt, ITERATIONS))
            self._renew_at = self._time() + _RENEW_S
        return self._current


def password_hash(password: str, salt: str, iterations: int) -> str:
    digest = f"{password}{salt}".encode()
    for _ in range(iterations):
        digest = hashlib.sha256(digest).digest()
    return digest.hex()
