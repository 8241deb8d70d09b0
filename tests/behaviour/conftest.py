"""The platforms that the behaviour suite runs on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.behaviour.local import LocalTestPlatform
from tests.behaviour.web import Site
from tests.behaviour.words import Platform


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture(params=["local", "aws"])
def platform(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Platform]:
    if request.param == "local":
        local = LocalTestPlatform(tmp_path)
        yield local
        local.close()
    else:
        from tests.behaviour.aws import AwsTestPlatform

        aws = AwsTestPlatform(tmp_path, *request.getfixturevalue("stepwell_aws_account"))
        yield aws
        aws.close()
