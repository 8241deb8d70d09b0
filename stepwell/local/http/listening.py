"""The sockets that a server listens on, and their URLs."""

from __future__ import annotations

import socket


def listen(host: str, port: int, cure: str = "another --port or --host") -> socket.socket:
    """A listening socket. Raises OSError with a message that names the address and what to choose."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}; choose {cure}") from None
    return listener


def url_of(listener: socket.socket, scheme: str = "http") -> str:
    """The URL at which programs on this machine reach a listening socket."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
