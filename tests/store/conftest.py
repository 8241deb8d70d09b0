"""Every test of this folder runs on every store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.aws.conftest import account, moto_takes_requests_one_at_a_time, resources
from tests.store.stores import InDynamoDb, InMemory, InSqlite, StoreUnderTest

__all__ = ["account", "moto_takes_requests_one_at_a_time", "resources"]


@pytest.fixture(params=["memory", "sqlite", "dynamodb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreUnderTest]:
    if request.param == "memory":
        yield InMemory()
    elif request.param == "dynamodb":
        yield InDynamoDb(request.getfixturevalue("resources"))
    else:
        sqlite = InSqlite(tmp_path)
        yield sqlite
        sqlite.close()
