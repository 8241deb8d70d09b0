"""The options `--faktory` and `--faktory-password-file` of the commands that run a server."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepwell.cli.ui.output import fail

if TYPE_CHECKING:
    from stepwell.local.faktory.options import FaktoryOptions
    from stepwell.local.http.tls import Certificate

PASSWORD = "STEPWELL_FAKTORY_PASSWORD"
NEEDS_PASSWORD = f"--faktory needs a password; set {PASSWORD}, or write it into a file for --faktory-password-file"
FaktoryOption = Annotated[
    str | None,
    typer.Option(
        "--faktory",
        metavar="[HOST]:PORT",
        help="Listen for workers and clients of Faktory, as in :7419; default host: --host. With --tls-cert, by TLS.",
    ),
]
FaktoryPasswordOption = Annotated[
    Path | None,
    typer.Option(
        "--faktory-password-file",
        metavar="FILE",
        help=f"The file with the password of Faktory workers and clients; default: the variable {PASSWORD}.",
    ),
]
_ADDRESS = re.compile(r"(?:(?:\[([^\]]+)\]|([^:]*)):)?(\d{1,5})")


def faktory_of(
    address: str | None, password_file: Path | None, host: str, certificate: Certificate | None
) -> FaktoryOptions | None:
    """Listens at the address; None if it is not given. `host`: the host if the address has none. Ends the command if
    that is not possible."""
    if address is None:
        if password_file is not None:
            fail("--faktory-password-file needs --faktory too", 2)
        return None
    from stepwell.local.faktory.options import FaktoryOptions
    from stepwell.local.http.listening import listen

    parts = _ADDRESS.fullmatch(address)
    if parts is None or int(parts[3]) > 65535:
        fail(f"--faktory {address!r} is not an address; write it like :7419 or 0.0.0.0:7419", 2)
    try:
        listener = listen(parts[1] or parts[2] or host, int(parts[3]), "another address for --faktory")
    except OSError as error:
        fail(str(error))
    return FaktoryOptions(listener, _password(password_file), certificate)


def _password(file: Path | None) -> str:
    if file is None:
        return os.environ.get(PASSWORD, "")
    try:
        password = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"cannot read --faktory-password-file {file}: {getattr(error, 'strerror', None) or error}", 2)
    if not password:
        fail(f"--faktory-password-file {file} is empty; write the password into it", 2)
    return password
