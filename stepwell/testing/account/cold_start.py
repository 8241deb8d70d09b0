"""Simulates new processes of the engine's Lambdas, in tests that call their handlers in one process."""

from __future__ import annotations

from stepwell.aws.engine.control import control
from stepwell.aws.engine.queue_consumer import queue_consumer
from stepwell.aws.engine.scheduler import scheduler
from stepwell.aws.engine.session import engine_session


def forget_process() -> None:
    """Clears the process-wide session and the objects built on it: the next call makes new ones."""
    for singleton in (engine_session, queue_consumer, scheduler, control):
        singleton.cache_clear()
