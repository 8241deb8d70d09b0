"""The two steps of W1. The second one notifies the benchmark."""

from __future__ import annotations

import os
from typing import Any


def first(event: dict[str, Any], context: object) -> dict[str, int]:
    return {"number": event["event"]["data"]["number"]}


def second(event: dict[str, Any], context: object) -> dict[str, int]:
    number = event["steps"]["first"]["number"]
    line = os.open(event["event"]["data"]["finish"], os.O_WRONLY | os.O_NONBLOCK)
    os.write(line, f"{number}\n".encode())
    os.close(line)
    return {"number": number}
