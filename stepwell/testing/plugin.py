"""The pytest plugin: Stepwell in a test, on this machine or on an emulated AWS, with a clock that the test moves.

The fixtures `stepwell` and `stepwell_aws` have the same methods, so one test can run on both. They are described in
`stepwell.testing.platform`, with the rules of what is settled when a method returns.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from stepwell.testing.account.emulator import Emulator
    from stepwell.testing.account.unkindness import Unkindness
    from stepwell.testing.ecs.containers import Containers, ContainerStepwell
    from stepwell.testing.ecs.host import EcsHost
    from stepwell.testing.lambdas.host import LambdaHost
    from stepwell.testing.local import LocalStepwell

_UNKINDNESS = pytest.StashKey["Unkindness"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("stepwell")
    group.addoption("--unkind", action="store_true", help="emulate AWS at its worst: throttling, duplicates, delays")
    group.addoption("--unkind-seed", default="1", metavar="TEXT", help="decides which faults happen when; default: 1")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "unkind: in this test, the emulated AWS account injects faults")
    config.addinivalue_line(
        "markers", "kind(reason): in this test, the emulated AWS account injects no faults, even with --unkind"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds to a failed test with injected faults the command that repeats it."""
    report = yield
    unkindness = item.stash.get(_UNKINDNESS, None)
    if report.failed and unkindness is not None:
        again = f"--unkind --unkind-seed={item.config.getoption('--unkind-seed')} '{item.nodeid}'"
        report.sections.append(("unkind account", f"{unkindness}\nto repeat it: pytest {again}"))
    return report


@pytest.fixture
def stepwell(tmp_path: Path) -> Iterator[LocalStepwell]:
    """A server on this machine with a database of its own.

    For the methods, see `stepwell.testing.platform.Stepwell`.
    """
    from stepwell.testing.local import LocalStepwell

    local = LocalStepwell(tmp_path / "stepwell")
    yield local
    local.close()


@pytest.fixture(scope="session")
def stepwell_containers() -> Iterator[Containers]:
    """Runs the container steps of `stepwell_aws`: docker or podman, and a registry on this machine."""
    from stepwell.testing.ecs.containers import Containers

    with closing(Containers()) as containers:
        yield containers


@pytest.fixture(scope="module")
def stepwell_aws_account(
    stepwell_containers: Containers,
) -> Iterator[tuple[Emulator, LambdaHost, EcsHost, Containers]]:
    """An emulated account for one module; the module's tests use it one after the other.

    It ends with the module, so tests of other modules can use moto in their own way.
    """
    from stepwell.testing.ecs.containers import container_account

    with container_account(stepwell_containers) as account:
        yield account


@pytest.fixture
def stepwell_unkindness(request: pytest.FixtureRequest) -> Unkindness | None:
    """The faults that the emulated account injects.

    Many with `--unkind` or the marker `unkind`; None with the marker `kind`, and otherwise. Override the fixture to
    choose the faults: see `stepwell.testing.account.unkindness.Unkindness`.
    """
    from stepwell.testing.account.unkindness import Unkindness

    is_unkind = request.config.getoption("--unkind") or request.node.get_closest_marker("unkind")
    if not is_unkind or request.node.get_closest_marker("kind"):
        return None
    unkindness = Unkindness(f"{request.config.getoption('--unkind-seed')} {request.node.nodeid}")
    request.node.stash[_UNKINDNESS] = unkindness
    return unkindness


@pytest.fixture
def stepwell_aws(
    stepwell_aws_account: tuple[Emulator, LambdaHost, EcsHost, Containers], stepwell_unkindness: Unkindness | None
) -> Iterator[ContainerStepwell]:
    """An environment in an empty emulated account. Needs `pip install 'stepwell[testing]'`.

    For the methods, see `stepwell.testing.platform.Stepwell`.
    """
    from stepwell.testing.ecs.containers import ContainerStepwell

    aws = ContainerStepwell(*stepwell_aws_account, unkindness=stepwell_unkindness)
    yield aws
    aws.close()
