"""Signs the data that the engine receives back: outcomes of attempts, decisions on approvals, the engine's messages.

A signature is the id of a key and an HMAC-SHA256 (RFC 2104) in hexadecimal digits: `k7q2m5xa.0f1e...`. The HMAC is cut
to 128 bits, the minimum that section 5 of the RFC recommends. Signatures by the key `UNNAMED` have no id in front.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

UNNAMED = "0"
"""The key whose signatures contain no key id: the only key of a local server, and of environments from before keys had
ids."""
SIGNATURE = r"(?:[a-z2-7]{8}\.)?[0-9a-f]{32}"
_PARTS = re.compile(r"(?:([a-z2-7]{8})\.)?([0-9a-f]{32})", re.ASCII)


class KeysUnreadable(Exception):
    """The signing keys cannot be read now, so a signature cannot be checked. Try again later."""


class UnknownKey(Exception):
    """A signature names a key that is unknown here, possibly because it is new. Try again later."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the signing key {key} is unknown here, or not known yet")


class Signer(Protocol):
    """Makes signatures and checks them. Both methods may raise KeysUnreadable."""

    def sign(self, text: bytes, key: str | None = None) -> str:
        """The signature of a text, by the key of this id if it is valid, else by the current key."""

    def is_signature(self, signature: str, text: bytes) -> bool:
        """Whether a valid key made this signature of the text. Raises UnknownKey if that may change within seconds."""


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """Implements `Signer`. `secrets`: by key id; `current`: the id of the key that signs."""

    current: str
    secrets: Mapping[str, bytes]

    def sign(self, text: bytes, key: str | None = None) -> str:
        return self._by(self.current if key is None or key not in self.secrets else key, text)

    def is_signature(self, signature: str, text: bytes) -> bool:
        key = key_of(signature)
        return key in self.secrets and hmac.compare_digest(signature, self._by(key, text))

    def _by(self, key: str, text: bytes) -> str:
        digits = hmac.digest(self.secrets[key], text, hashlib.sha256)[:16].hex()
        return digits if key == UNNAMED else f"{key}.{digits}"


def key_of(signature: str) -> str:
    """The id of the key in a signature; empty if the text is not a signature."""
    parts = _PARTS.fullmatch(signature)
    return "" if parts is None else parts[1] or UNNAMED


def single_key(secret: bytes) -> SigningKeys:
    """The signing keys of a server that uses a single key."""
    return SigningKeys(UNNAMED, {UNNAMED: secret})
