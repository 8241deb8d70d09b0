"""Tests RSA signatures against OpenSSL, and known forgeries."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from stepwell.core.webhooks.rsa import BadCertificate, PublicKey, is_signed, public_key

MESSAGE = b"Message\nhello\n"


def openssl(folder: Path, *arguments: str, content: bytes = b"") -> bytes:
    done = subprocess.run(["openssl", *arguments], input=content, capture_output=True, check=True, cwd=folder)
    return done.stdout


def certify(folder: Path, kind: str = "rsa:2048", *more: str) -> PublicKey:
    request = ("req", "-x509", "-newkey", kind, "-nodes", "-days", "1", "-subj", "/CN=sns.amazonaws.com")
    openssl(folder, *request, *more, "-keyout", "k.pem", "-out", "c.pem")
    return public_key((folder / "c.pem").read_bytes())


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_signatures_of_openssl_are_right_and_a_changed_bit_is_wrong(tmp_path: Path, bits: int, algorithm: str) -> None:
    key = certify(tmp_path, f"rsa:{bits}")
    signature = openssl(tmp_path, "dgst", f"-{algorithm}", "-sign", "k.pem", content=MESSAGE)
    assert is_signed(key, algorithm, MESSAGE, signature)
    assert not is_signed(key, algorithm, MESSAGE + b"x", signature)
    assert not is_signed(key, "sha1" if algorithm == "sha256" else "sha256", MESSAGE, signature)
    for place in (0, 1, len(signature) // 2, len(signature) - 1):
        changed = bytearray(signature)
        changed[place] ^= 1
        assert not is_signed(key, algorithm, MESSAGE, bytes(changed))
    for other in (b"", b"\0" + signature, signature[1:], signature + b"\0", b"\xff" * key.size, b"\0" * key.size):
        assert not is_signed(key, algorithm, MESSAGE, other)


def test_a_signature_with_short_padding_is_wrong() -> None:
    """Bleichenbacher's forgery (2006): a number whose cube begins like a signed message."""
    key = PublicKey(2**2047 + 1, 3)
    head = b"\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff\x00"
    target = int.from_bytes(head + b"\0" * (key.size - len(head)))
    root = round(target ** (1 / 3)) if target < 1e300 else 1 << ((target.bit_length() + 2) // 3)
    assert not is_signed(key, "sha256", MESSAGE, root.to_bytes(key.size))


def test_the_key_of_a_certificate_is_the_one_that_openssl_reads(tmp_path: Path) -> None:
    key = certify(tmp_path, "rsa:2048", "-addext", "subjectAltName=DNS:sns.amazonaws.com")
    text = openssl(tmp_path, "x509", "-in", "c.pem", "-noout", "-modulus").decode()
    assert (key.modulus, key.exponent) == (int(text.strip().partition("=")[2], 16), 65537)


def test_data_without_an_rsa_certificate_is_refused(tmp_path: Path) -> None:
    key = certify(tmp_path)
    assert key.size == 256
    pem = (tmp_path / "c.pem").read_bytes()
    lines = pem.splitlines()
    for wrong in (
        b"",
        b"<html>",
        b"\xff",
        pem[:200] + b"\n-----END CERTIFICATE-----\n",
        b"\n".join([lines[0], b"", lines[-1]]),
        b"\n".join([lines[0], b"MIID", lines[-1]]),
    ):
        with pytest.raises(BadCertificate):
            public_key(wrong)
    for kind in (("ec", "-pkeyopt", "ec_paramgen_curve:P-256"), ("ed25519",), ("rsa:1024",)):
        with pytest.raises(BadCertificate):
            certify(tmp_path, *kind)


def test_a_certificate_of_other_elements_or_with_something_after_it_is_refused(tmp_path: Path) -> None:
    """A reader that is more lenient than OpenSSL's would take a key from data that is not a certificate."""
    certify(tmp_path)
    certificate = ssl.PEM_cert_to_DER_cert((tmp_path / "c.pem").read_text())
    set_instead_of_sequence = b"\x31" + certificate[1:]
    for wrong in (set_instead_of_sequence, certificate + b"\0", certificate + certificate):
        with pytest.raises(BadCertificate):
            public_key(ssl.DER_cert_to_PEM_cert(wrong).encode())
