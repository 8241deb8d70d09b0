"""Logs, metrics and traces of our own Lambdas, by Powertools: JSON lines, and metrics in the embedded format: no call.

One rule: what is measured is collected while a batch is worked on, and written once, at its end. Who has no traces does
not load what makes them.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from typing import Any

Handler = Callable[[Any, Any], Any]
NAMESPACE = "Stepwell"
# variables of each Lambda, by the settings of that name
LOG_LEVEL, TRACING, METRICS = "STEPWELL_LOG_LEVEL", "STEPWELL_TRACING", "STEPWELL_METRICS"
_values: list[tuple[str, str, float]] = []


def count(name: str, value: float = 1) -> None:
    """Count something, such as `RunsCompleted`."""
    _values.append((name, "Count", value))


def duration(name: str, ms: float) -> None:
    """A duration in milliseconds, such as `StepDuration`."""
    _values.append((name, "Milliseconds", ms))


def observed(handler: Handler) -> Handler:
    """A Lambda handler whose logs say which request they belong to, and whose metrics are written at its end."""

    @functools.wraps(handler)
    def wrapper(event: Any, context: Any) -> Any:
        logger = _logger()
        logger.append_keys(request_id=getattr(context, "aws_request_id", None))
        try:
            return _traced(handler)(event, context)
        finally:
            _write_metrics()

    return wrapper


@functools.cache
def _traced(handler: Handler) -> Handler:
    """The handler with a subsegment of its own and one for each request to AWS, where `tracing` is on. Lambda decides
    which invocations are traced."""
    if os.environ.get(TRACING) != "true":
        return handler
    from aws_lambda_powertools import Tracer

    tracer = Tracer(service="stepwell", patch_modules=("botocore",))
    traced: Handler = tracer.capture_lambda_handler(handler, capture_response=False)
    return traced


@functools.lru_cache(maxsize=1)
def _logger() -> Any:
    from aws_lambda_powertools import Logger
    from aws_lambda_powertools.logging.utils import copy_config_to_registered_loggers

    level = os.environ.get(LOG_LEVEL, "INFO")
    logger = Logger(service="stepwell", level=level)
    children = ("aws", "engine", "runs", "dispatch", "types", "webhooks")
    ours = [logging.getLogger(name) for name in ("stepwell", *(f"stepwell.{child}" for child in children))]
    copy_config_to_registered_loggers(source_logger=logger, include={"stepwell"})  # of those that there are
    for each in ours:
        each.setLevel(
            level
        )  # Powertools prefers the level that Lambda filters by, which `application_log_level` keeps low
    return logger


def application_log_level(level: str) -> str:
    """The level from which on Lambda keeps lines, for Lambdas that log from `level` on.

    It is INFO at most: a line without a level counts as INFO, and metrics are such lines. The loggers drop the rest.
    https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html
    """
    return "DEBUG" if level == "DEBUG" else "INFO"


def _write_metrics() -> None:
    if os.environ.get(METRICS) == "false":
        _values.clear()
    if not _values:
        return
    from aws_lambda_powertools import Metrics

    metrics = Metrics(namespace=NAMESPACE, service="stepwell")
    metrics.set_default_dimensions(env=os.environ.get("STEPWELL_ENV_NAME", "dev"))
    for name, unit, value in _values:
        metrics.add_metric(name=name, unit=unit, value=value)
    _values.clear()
    metrics.flush_metrics()
