"""Container steps in tests: images in a registry, and an environment whose ECS runs them."""

from __future__ import annotations

import platform
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwell.aws import adapter
from stepwell.aws.clients import client
from stepwell.testing.aws import AwsStepwell
from stepwell.testing.ecs_host import EcsHost
from stepwell.testing.emulator import Emulator
from stepwell.testing.lambda_host import LambdaHost
from stepwell.testing.registry import Registry
from tests.containers import BUSYBOX

PATIENCE_S = 60
ARCHITECTURE = "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64"


@dataclass(frozen=True)
class Images:
    """An engine, and what is in the registry for it: an image that is but busybox, with some variables, and the
    adapter's."""

    engine: str
    registry: Registry
    busybox: str
    adapter: str


def make_images(engine: str, registry: Registry, folder: Path) -> Images:
    binaries = {"busybox": (BUSYBOX, "bin/busybox"), "adapter": (adapter.binary(ARCHITECTURE), "bootstrap")}
    images = {name: f"{registry.host}/{name}:1" for name in binaries}
    for name, (binary, place) in binaries.items():
        (folder / name).mkdir()
        shutil.copy(binary, folder / name / "binary")
        dockerfile = f'FROM scratch\nCOPY binary /{place}\nENV A=image B=image D=image\nENTRYPOINT ["/{place}"]\n'
        (folder / name / "Dockerfile").write_text(dockerfile)
        insecure = ["--tls-verify=false"] if Path(engine).name == "podman" else []
        for words in (
            ["build", "-t", images[name], str(folder / name)],
            ["push", *insecure, images[name]],
            ["rmi", images[name]],  # ECS has to pull it
        ):
            subprocess.run([engine, *words], check=True, capture_output=True, timeout=60)
    return Images(engine, registry, **images)


def remove_images(images: Images) -> None:
    """All that came from the registry, or went there."""
    of_registry = ["--filter", f"reference={images.registry.host}/*"]
    listed = subprocess.run([images.engine, "images", "-q", *of_registry], check=True, capture_output=True, text=True)
    if ids := sorted(set(listed.stdout.split())):
        subprocess.run([images.engine, "rmi", "-f", *ids], check=True, capture_output=True)


class ContainerStepwell(AwsStepwell):
    """An environment with a cluster. What moves is also what runs in containers."""

    def __init__(self, emulator: Emulator, host: LambdaHost, ecs: EcsHost, images: Images, **settings: Any) -> None:
        ecs.reset()
        super().__init__(
            emulator,
            host,
            cluster="stepwell",
            subnets=("subnet-1",),
            security_groups=("sg-1",),
            execution_role=f"arn:aws:iam::{emulator.account}:role/execution",
            adapter_images={ARCHITECTURE: images.adapter},
            repository=f"{images.registry.host}/steps",
            **settings,
        )
        self.emulator, self.ecs = emulator, ecs
        client("ecs").create_cluster(clusterName="stepwell")

    def settle(self) -> None:
        super().settle()
        while self.ecs.wait_any(PATIENCE_S):
            super().settle()

    def wait_until_running(self, tasks: int = 1) -> None:
        """Until that many containers of steps run, or are about to."""
        deadline = time.monotonic() + PATIENCE_S
        while len(self.ecs.running) < tasks:
            assert time.monotonic() < deadline, "no container runs"
            self.ecs.wait_any(0.01)
