"""Reserved instances of step Lambdas: the environment's setting, and none without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.push.conftest import Aws

Write = Callable[..., Path]
ONE = {"one": {"path": "file://./one"}}
FILES = {"one/main.py": "print(1)\n"}


def reserved(aws: Aws) -> list[int]:
    client: Any = aws.session.client("lambda")
    names = [function["FunctionName"] for function in client.list_functions()["Functions"]]
    return [client.get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions", 0) for name in names]


def test_by_default_nothing_is_reserved_and_nothing_requested(aws: Aws, write: Write) -> None:
    aws.push(write(steps=ONE, files=FILES))
    assert not [name for name in aws.writes if "Concurrency" in name]
    assert reserved(aws) == [0]


def test_a_new_step_has_the_environment_s_reserved_instances(aws: Aws, write: Write) -> None:
    aws.resources = replace(aws.resources, step_concurrency=3)
    aws.push(write(steps=ONE, files=FILES))
    assert reserved(aws) == [3]


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 5), (5, 0)])
def test_a_changed_number_is_applied_to_unchanged_steps(aws: Aws, write: Write, before: int, after: int) -> None:
    folder = write(steps=ONE, files=FILES)
    aws.resources = replace(aws.resources, step_concurrency=before)
    aws.push(folder)
    aws.resources = replace(aws.resources, step_concurrency=after)
    aws.push(folder)
    assert reserved(aws) == [after]
    writes = aws.writes
    aws.push(folder)
    assert aws.writes == writes, "a push without changes writes nothing"
