"""The pytest plugin: Stepwell in a test, on this machine or on an emulated AWS, with a clock that the test moves.

`stepwell` and `stepwell_aws` speak the same words, so one test can run on both. `stepwell.testing.platform` has them,
and says what settles when.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from stepwell.testing.containers import Containers, ContainerStepwell
    from stepwell.testing.ecs_host import EcsHost
    from stepwell.testing.emulator import Emulator
    from stepwell.testing.lambda_host import LambdaHost
    from stepwell.testing.local import LocalStepwell


@pytest.fixture
def stepwell(tmp_path: Path) -> Iterator[LocalStepwell]:
    """A server on this machine, with a database of its own. Its words: `stepwell.testing.platform.Stepwell`."""
    from stepwell.testing.local import LocalStepwell

    local = LocalStepwell(tmp_path / "stepwell")
    yield local
    local.close()


@pytest.fixture(scope="session")
def stepwell_containers() -> Iterator[Containers]:
    """What runs the container steps of `stepwell_aws`: docker or podman, and a registry that only this machine has."""
    from stepwell.testing.containers import Containers

    with closing(Containers()) as containers:
        yield containers


@pytest.fixture(scope="module")
def stepwell_aws_account(
    stepwell_containers: Containers,
) -> Iterator[tuple[Emulator, LambdaHost, EcsHost, Containers]]:
    """An emulated account, which the tests of a module use one after the other; those of others may use moto too."""
    from stepwell.testing.containers import container_account

    with container_account(stepwell_containers) as account:
        yield account


@pytest.fixture
def stepwell_aws(
    stepwell_aws_account: tuple[Emulator, LambdaHost, EcsHost, Containers],
) -> Iterator[ContainerStepwell]:
    """An environment in an emulated account that is empty. Needs `pip install 'stepwell[testing]'`. Its words:
    `stepwell.testing.platform.Stepwell`."""
    from stepwell.testing.containers import ContainerStepwell

    aws = ContainerStepwell(*stepwell_aws_account)
    yield aws
    aws.close()
