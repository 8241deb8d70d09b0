from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepwell.aws.deploy import adapter
from tests.adapter.lambda_service import Lambda


@pytest.fixture(scope="session")
def binary() -> Path:
    return adapter.binary({"aarch64": "arm64"}.get(platform.machine(), platform.machine()))


@pytest.fixture
def sandbox(binary: Path, tmp_path: Path) -> Iterator[Lambda]:
    sandbox = Lambda(binary, tmp_path)
    yield sandbox
    sandbox.close()
