"""The local platform for tests in the words of the behaviour suite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.behaviour.local import LocalTestPlatform
from tests.behaviour.words import Platform


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    local = LocalTestPlatform(tmp_path)
    yield local
    local.close()
