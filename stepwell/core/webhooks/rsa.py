"""Checks RSA signatures (PKCS #1 v1.5) with the public key of an X.509 certificate.

The standard library cannot do this, and a library that can is larger than all other code for webhooks. A check needs no
secret, so timing reveals nothing. As in RFC 8017, section 8.2.2, the expected encoded message is built and compared as
a whole. Nothing is parsed out of a signature, because such parsing led to forgeries (such as CVE-2006-4339). Keys are
decoded from DER as defined in RFC 5280, section 4.1, and RFC 8017, appendix A.1.1.
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

_INTEGER, _BIT_STRING, _SEQUENCE, _CONTEXT_0 = 0x02, 0x03, 0x30, 0xA0
_RSA_ENCRYPTION = bytes.fromhex("06092a864886f70d010101")  # 1.2.840.113549.1.1.1
_DIGEST_INFO = {  # RFC 8017, section 9.2, note 1
    "sha1": bytes.fromhex("3021300906052b0e03021a05000414"),
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
}
_SMALLEST, _LARGEST = 2048 // 8, 8192 // 8  # bytes of the modulus


class BadCertificate(ValueError):
    """The certificate contains no usable RSA key."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    modulus: int
    exponent: int

    @property
    def size(self) -> int:
        """The length of a signature in bytes."""
        return (self.modulus.bit_length() + 7) // 8


def is_signed(key: PublicKey, algorithm: str, message: bytes, signature: bytes) -> bool:
    """Whether the key signed the message. `algorithm`: sha1 or sha256."""
    number = int.from_bytes(signature)
    if len(signature) != key.size or number >= key.modulus:
        return False
    encoded = pow(number, key.exponent, key.modulus).to_bytes(key.size)
    info = _DIGEST_INFO[algorithm] + hashlib.new(algorithm, message).digest()
    padding = b"\xff" * (key.size - len(info) - 3)
    return hmac.compare_digest(encoded, b"\x00\x01" + padding + b"\x00" + info)


def public_key(pem: bytes) -> PublicKey:
    """The RSA key of a certificate. Raises BadCertificate."""
    try:
        certificate = ssl.PEM_cert_to_DER_cert(pem.decode("ascii").strip())
        (signed_part, *_) = _elements(_content(certificate, _SEQUENCE))
        fields = [element for element in _elements(_content(signed_part, _SEQUENCE)) if element[0] != _CONTEXT_0]
        # Without the version, the fields are: serial number, algorithm, issuer, validity, subject, public key
        algorithm, key_bits = _elements(_content(fields[5], _SEQUENCE))
        if not _content(algorithm, _SEQUENCE).startswith(_RSA_ENCRYPTION):
            raise BadCertificate("the key is not an RSA key")
        bits = _content(key_bits, _BIT_STRING)
        numbers = [int.from_bytes(_content(element, _INTEGER)) for element in _elements(_content(bits[1:], _SEQUENCE))]
        key = PublicKey(*numbers)
    except (ValueError, IndexError, TypeError) as error:
        raise BadCertificate(f"no RSA key can be read from the certificate: {error}") from None
    if not _SMALLEST <= key.size <= _LARGEST or key.exponent < 3 or key.exponent.bit_length() > 64:
        raise BadCertificate("the size of the certificate's key is not allowed for signatures")
    return key


def _elements(data: bytes) -> Iterator[bytes]:
    """The elements of a DER sequence, each with its tag and length."""
    while data:
        _, end = _bounds(data)
        yield data[:end]
        data = data[end:]


def _content(element: bytes, tag: int) -> bytes:
    start, end = _bounds(element)
    if element[0] != tag or end != len(element):
        raise ValueError("an element has an unexpected type")
    return element[start:end]


def _bounds(data: bytes) -> tuple[int, int]:
    """The offsets at which the content of the first element begins and ends."""
    length, start = data[1], 2
    if length & 0x80:
        count = length & 0x7F
        length, start = int.from_bytes(data[2 : 2 + count]), 2 + count
    end = start + length
    if end > len(data) or start > len(data):
        raise ValueError("the data ends too early")
    return start, end
