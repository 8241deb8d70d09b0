"""The logs of Lambdas: Stepwell's lines and metrics, and only warnings of Lambda itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from stepwell.aws.observability import application_log_level
from tests.infra.conftest import Synth
from tests.infra.test_stack import functions

every_environment = pytest.mark.parametrize("env", ["dev", "all", "bare"])
LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR"]
OF_LAMBDA = {"TRACE": 0, "DEBUG": 1, "INFO": 2, "WARN": 3, "WARNING": 3, "ERROR": 4, "FATAL": 5}
WRITE = """
import logging
from types import SimpleNamespace
from stepwell.aws.observability import count, observed

@observed
def handler(event, context):
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logging.getLogger("stepwell.aws").log(level, "a line")
        logging.getLogger("stepwell").log(level, "a line")
    count("EventsAccepted")

handler({}, SimpleNamespace(aws_request_id="1"))
"""


@every_environment
def test_lambdas_log_json_and_only_warnings_of_lambda_itself(synth: Synth, env: str) -> None:
    level = application_log_level(synth.settings[env].log_level)
    wanted = {"LogFormat": "JSON", "SystemLogLevel": "WARN", "ApplicationLogLevel": level}
    found = {name: item.get("LoggingConfig") for name, item in functions(synth, env).items()}
    assert found.pop("step_http") is None, "logs of attempts are read by the lines START and END, which are text"
    assert list(found.values()) == [wanted] * len(found)


@every_environment
def test_metrics_are_written_unless_they_are_turned_off(synth: Synth, env: str) -> None:
    written = {
        function["Environment"]["Variables"].get("STEPWELL_METRICS") for function in functions(synth, env).values()
    }
    assert written == ({None} if synth.settings[env].metrics else {"false"})


def lines(level: str, **variables: str) -> list[dict[str, object]]:
    """The lines that remain after Lambda's filter, as documented: lines below the application's log level are dropped,
    and a line without a level counts as INFO."""
    least = application_log_level(level)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WRITE],
        env={**os.environ, "STEPWELL_LOG_LEVEL": level, "AWS_LAMBDA_LOG_LEVEL": least, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "", "Powertools warns of levels that do not go together"
    written = [json.loads(line) for line in done.stdout.splitlines()]
    return [line for line in written if OF_LAMBDA[line.get("level", "INFO")] >= OF_LAMBDA[least]]


@pytest.mark.parametrize("level", LEVELS)
def test_the_log_level_applies_to_lines_and_not_to_metrics(level: str) -> None:
    found = lines(level)
    assert [line["level"] for line in found if "level" in line] == [
        level for level in LEVELS[LEVELS.index(level) :] for _ in range(2)
    ]
    assert [line["EventsAccepted"] for line in found if "_aws" in line] == [[1.0]]


def test_no_metric_is_written_if_metrics_are_off() -> None:
    assert not [line for line in lines("INFO", STEPWELL_METRICS="false") if "_aws" in line]
