"""Logs, metrics and traces of the engine's Lambdas, with Powertools.

Logs are JSON lines. Metrics are log lines in the embedded metric format, so they need no request. Metrics are collected
during an invocation and written once, when it ends. The tracer is imported only if tracing is on.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from typing import Any

Handler = Callable[[Any, Any], Any]
NAMESPACE = "Stepwell"
# environment variables of each Lambda, set from the settings of the same names
LOG_LEVEL, TRACING, METRICS = "STEPWELL_LOG_LEVEL", "STEPWELL_TRACING", "STEPWELL_METRICS"
_values: list[tuple[str, str, float]] = []


def count(name: str, value: float = 1) -> None:
    """Adds to a counter, such as `RunsCompleted`."""
    _values.append((name, "Count", value))


def duration(name: str, ms: float) -> None:
    """Records a duration in milliseconds, such as `StepDuration`."""
    _values.append((name, "Milliseconds", ms))


def observed(handler: Handler) -> Handler:
    """The Lambda handler, with the request id in each log line, and metrics written at the end of an invocation."""

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
    """The handler, traced if the setting `tracing` is on: one subsegment for it and one for each request to AWS.

    Lambda decides which invocations are sampled.
    """
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
    loggers = [logging.getLogger(name) for name in ("stepwell", *(f"stepwell.{child}" for child in children))]
    copy_config_to_registered_loggers(source_logger=logger, include={"stepwell"})
    for stepwell_logger in loggers:
        # Powertools sets the level by which Lambda filters, and `application_log_level` keeps that one low
        stepwell_logger.setLevel(level)
    return logger


def application_log_level(level: str) -> str:
    """The lowest level that Lambda keeps, for a Lambda whose loggers write `level` and above.

    It is never above INFO: Lambda treats a line without a level as INFO, and metrics are such lines. The loggers drop
    what is below `level`.
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
