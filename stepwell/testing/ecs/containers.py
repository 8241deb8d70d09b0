"""Container steps in tests: docker or podman runs them instead of ECS, with images from a registry in this process.

Tests without container steps need no engine: the engine is searched, and the adapter's image built, at the first push
of a container step.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import time
import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from stepwell.aws.clients import client
from stepwell.aws.deploy import adapter
from stepwell.aws.deploy.wanted import Wanted
from stepwell.aws.resources import Resources
from stepwell.project.container_engine import NoEngine, find_engine
from stepwell.testing.account.emulator import Emulator
from stepwell.testing.aws import AwsStepwell, aws_account
from stepwell.testing.ecs.host import EcsHost
from stepwell.testing.ecs.registry import Registry
from stepwell.testing.lambdas.host import LambdaHost
from stepwell.testing.platform import Refused

ARCHITECTURE = "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64"
PATIENCE_S = 60
_BUILD_WITHIN_S = 120
_REMOVE_ATTEMPTS = 5


class Containers:
    """The engine, and the registry that images are pushed to and pulled from. `close` removes the images."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.adapter = f"{self.registry.host}/adapter:1"
        self._has_adapter = False

    @cached_property
    def engine(self) -> str:
        """The path of docker or podman. Raises NoEngine."""
        return find_engine()

    def make_adapter(self) -> None:
        """Puts the adapter's image into the registry. Raises NoEngine; CalledProcessError if the engine fails."""
        if self._has_adapter:
            return
        with TemporaryDirectory() as folder:
            shutil.copy(adapter.binary(ARCHITECTURE), Path(folder) / "adapter")
            dockerfile = 'FROM scratch\nCOPY adapter /bootstrap\nENTRYPOINT ["/bootstrap"]\n'
            self.make(self.adapter, Path(folder), dockerfile)
        self._has_adapter = True

    def make(self, image: str, folder: Path, dockerfile: str) -> None:
        """Builds an image and pushes it to the registry. Removes the local copy, so that ECS has to pull it."""
        (folder / "Dockerfile").write_text(dockerfile)
        # docker assumes plain HTTP for a registry on this machine; podman must be told
        insecure = ["--tls-verify=false"] if Path(self.engine).name == "podman" else []
        for words in (["build", "-t", image, str(folder)], ["push", *insecure, image], ["rmi", image]):
            command = [self.engine, *words]
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_BUILD_WITHIN_S)

    def close(self) -> None:
        if "engine" in self.__dict__:
            self._remove_images()
        self.registry.close()

    def _remove_images(self) -> None:
        """Removes all images of the registry from the engine. A failure is only a warning: the tests have passed."""
        for attempts_left in range(_REMOVE_ATTEMPTS - 1, -1, -1):
            try:
                self._remove_listed_images()
                return
            except subprocess.CalledProcessError as error:
                # podman cannot list images while another process removes some of them
                if not attempts_left:
                    warnings.warn(
                        f"cannot remove images of {self.registry.host}: {error.stderr.strip()[-300:]}", stacklevel=3
                    )

    def _remove_listed_images(self) -> None:
        command = [self.engine, "images", "-q", "--filter", f"reference={self.registry.host}/*"]
        listed = subprocess.run(command, check=True, capture_output=True, text=True)
        if ids := sorted(set(listed.stdout.split())):
            subprocess.run([self.engine, "rmi", "-f", *ids], check=True, capture_output=True, text=True)


class ContainerStepwell(AwsStepwell):
    """An environment with a cluster. `settle` waits for running containers too."""

    def __init__(
        self, emulator: Emulator, host: LambdaHost, ecs: EcsHost, containers: Containers, **settings: Any
    ) -> None:
        ecs.reset()
        super().__init__(
            emulator,
            host,
            cluster="stepwell",
            subnets=("subnet-1",),
            security_groups=("sg-1",),
            execution_role=f"arn:aws:iam::{emulator.account}:role/execution",
            adapter_images={ARCHITECTURE: containers.adapter},
            repository=f"{containers.registry.host}/steps",
            **settings,
        )
        self.emulator, self.ecs, self._containers = emulator, ecs, containers

    def _make(self, settings: Mapping[str, Any]) -> tuple[Resources, str]:
        made = super()._make(settings)
        client("ecs").create_cluster(clusterName="stepwell")
        return made

    def _prepare(self, wanted: Sequence[Wanted]) -> None:
        if not any(wanted.tasks for wanted in wanted):
            return
        try:
            self._containers.make_adapter()
        except NoEngine as reason:
            text = f"{reason}; tests with container steps need one: install and start docker or podman"
            raise Refused(400, [{"pointer": "", "message": text}]) from None
        except subprocess.CalledProcessError as error:
            text = f"{Path(self._containers.engine).name} cannot run containers here: {error.stderr.strip()[-300:]}"
            raise Refused(400, [{"pointer": "", "message": text}]) from None

    def _settle(self, within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while super()._settle(deadline - time.monotonic()):
            if not self.ecs.wait_any(min(PATIENCE_S, max(0.0, deadline - time.monotonic()))):
                return not self.ecs.running
        return False

    def _running(self) -> frozenset[Hashable]:
        return super()._running().union(self.ecs.running)

    def wait_until_running(self, tasks: int = 1) -> None:
        """Waits until this many steps run in containers, or are about to."""
        deadline = time.monotonic() + PATIENCE_S
        while len(self.ecs.running) < tasks:
            assert time.monotonic() < deadline, "no container runs"
            self.ecs.wait_any(0.01)


@contextmanager
def container_account(containers: Containers) -> Iterator[tuple[Emulator, LambdaHost, EcsHost, Containers]]:
    """An emulated account that also runs containers, for tests that use it one after the other."""
    # otherwise moto builds AWS's 1,300 machine images each time that ECS looks up a subnet
    with patch.dict("os.environ", MOTO_EC2_LOAD_DEFAULT_AMIS="false"), aws_account() as (emulator, host):
        outcomes = f"arn:aws:sqs:{emulator.region}:{emulator.account}:outcomes"
        emit = lambda event: emulator.queues.send(outcomes, json.dumps(event))  # noqa: E731
        with closing(EcsHost(emulator, lambda: containers.engine, emit)) as ecs:
            yield emulator, host, ecs, containers
