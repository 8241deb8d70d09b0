"""The platforms that the behaviour suite runs on: the local server, AWS, and AWS with injected faults.

With `--unkind`, all tests on AWS run with faults. Without it, a part of them also runs with faults, as `[unkind]`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import pytest

from tests.behaviour.local import LocalTestPlatform
from tests.behaviour.web import Site
from tests.behaviour.words import Platform

_UNKIND = ("test_joins", "test_waits", "test_delays", "test_cancel", "test_cancel_rules")
_ONE_OF = 4  # one of four tests also runs with faults; the name decides, so it is always the same test


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = {item for item in items if _platform(item) == "unkind" and not _is_chosen(item, config)}
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


def _platform(item: pytest.Item) -> str | None:
    return (
        item.callspec.params.get("platform")
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
        else None
    )


def _is_chosen(item: pytest.Item, config: pytest.Config) -> bool:
    if config.getoption("--unkind") or item.get_closest_marker("kind"):
        return False
    return item.path.stem in _UNKIND and crc32(item.name.encode()) % _ONE_OF == 0


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture(params=["local", "aws", "unkind"])
def platform(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Platform]:
    if request.param == "local":
        local = LocalTestPlatform(tmp_path)
        yield local
        local.close()
    else:
        from tests.behaviour.aws import AwsTestPlatform

        if request.param == "unkind":
            request.node.add_marker("unkind")
        account = request.getfixturevalue("stepwell_aws_account")
        aws = AwsTestPlatform(tmp_path, *account, unkindness=request.getfixturevalue("stepwell_unkindness"))
        yield aws
        aws.close()
