"""The options `--tls-cert` and `--tls-key` of the commands that run a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepwell.cli.ui.output import fail

if TYPE_CHECKING:
    from stepwell.local.http.tls import Certificate

CertificateOption = Annotated[
    Path | None,
    typer.Option("--tls-cert", metavar="FILE", help="The certificate for HTTPS (PEM, including the chain)."),
]
CertificateKeyOption = Annotated[
    Path | None, typer.Option("--tls-key", metavar="FILE", help="The private key of --tls-cert (PEM, not encrypted).")
]


def certificate_of(certificate: Path | None, key: Path | None) -> Certificate | None:
    """The certificate, or None if neither option is given. Ends the command if the files cannot be used."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        given, missing = ("--tls-key", "--tls-cert") if certificate is None else ("--tls-cert", "--tls-key")
        fail(f"{given} needs {missing} too", 2)
    from stepwell.local.http.tls import BadCertificate, Certificate

    try:
        return Certificate(certificate, key)
    except BadCertificate as error:
        fail(str(error), 2)
