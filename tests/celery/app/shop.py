"""A Celery app as users have it: it knows nothing of Stepwell."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import Celery
from celery.exceptions import Ignore

app = Celery("shop", broker=os.environ["BROKER"], backend=os.environ.get("BACKEND"))
app.conf.broker_connection_retry_on_startup = True
if "QUEUE" in os.environ:
    app.conf.task_default_queue = os.environ["QUEUE"]


class OutOfStock(Exception):
    """An exception of the app."""


@app.task
def send_email(address: str, subject: str = "Hello") -> dict[str, str]:
    return {"sent_to": address, "subject": subject}


@app.task
def whole_input(document: dict[str, Any]) -> dict[str, Any]:
    return {"event": document["event"]["name"], "attempt": document["ctx"]["attempt"]}


@app.task
def fail(message: str) -> None:
    raise OutOfStock(message)


@app.task(bind=True, max_retries=3)
def retry_twice(self: Any) -> int:
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return int(self.request.retries)


@app.task(ignore_result=True)
def forgetful() -> str:
    return "done"


@app.task
def give(value: Any) -> Any:
    return value


@app.task
def fail_until(path: str, times: int) -> int:
    """Fails so many times, counted in a file."""
    file = Path(path)
    with file.open("a") as lines:
        lines.write("x")
    if (count := file.stat().st_size) <= times:
        raise OutOfStock(f"try {count}")
    return count


@app.task(acks_late=True)
def wait_for(path: str, started: str = "") -> str:
    """Runs until a file exists."""
    if started:
        with Path(started).open("a") as lines:
            lines.write("x")
    while not Path(path).exists():
        time.sleep(0.01)
    return "waited"


@app.task
def ignored() -> None:
    raise Ignore
