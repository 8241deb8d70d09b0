"""The pytest plugin: Stepwell in a test, on this machine or on an emulated AWS, with a clock that the test moves.

`stepwell` and `stepwell_aws` speak the same words (`stepwell.testing.platform.Stepwell`), so one test can run on both.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from stepwell.testing.aws import AwsStepwell
    from stepwell.testing.emulator import Emulator
    from stepwell.testing.lambda_host import LambdaHost
    from stepwell.testing.local import LocalStepwell


@pytest.fixture
def stepwell(tmp_path: Path) -> Iterator[LocalStepwell]:
    """A server on this machine, with a database of its own."""
    from stepwell.testing.local import LocalStepwell

    local = LocalStepwell(tmp_path / "stepwell")
    yield local
    local.close()


@pytest.fixture(scope="module")
def stepwell_aws_account() -> Iterator[tuple[Emulator, LambdaHost]]:
    """An emulated account, which the tests of a module use one after the other; those of others may use moto too."""
    from stepwell.testing.aws import aws_account

    with aws_account() as account:
        yield account


@pytest.fixture
def stepwell_aws(stepwell_aws_account: tuple[Emulator, LambdaHost]) -> Iterator[AwsStepwell]:
    """An environment in an emulated account that is empty. Needs `pip install 'stepwell[testing]'`."""
    from stepwell.testing.aws import AwsStepwell

    aws = AwsStepwell(*stepwell_aws_account)
    yield aws
    aws.close()
