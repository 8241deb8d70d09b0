"""Polls /healthz of a server, each time over a new connection: python watcher.py PORT

Prints a line when it starts, and the longest time until an answer, in seconds, when it is terminated. It is a separate
process, because a thread in the benchmark would wait for the benchmark's other threads.
"""

from __future__ import annotations

import http.client
import signal
import sys
import time

_PATIENCE_S = 60.0
_PAUSE_S = 0.005


def asked_s(port: int) -> float:
    """The time until an answer, in seconds. Raises OSError, HTTPException."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_S)
    try:
        connection.request("GET", "/healthz")
        connection.getresponse().read()
    finally:
        connection.close()
    return time.perf_counter() - began


def main(port: int) -> None:
    is_over = False

    def end(*_: object) -> None:
        nonlocal is_over
        is_over = True

    signal.signal(signal.SIGTERM, end)
    asked_s(port)
    print("watching", flush=True)
    longest = 0.0
    while not is_over:
        longest = max(longest, asked_s(port))
        time.sleep(_PAUSE_S)
    print(longest)


if __name__ == "__main__":
    main(int(sys.argv[1]))
