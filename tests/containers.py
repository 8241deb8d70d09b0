"""Finds a container engine for tests, and makes images without a registry."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from stepwell.local.runners.image import find_engine
from stepwell.local.runners.job import CannotRun

BUSYBOX = Path("/bin/busybox")
CONTAINERS_CONF = """\
[containers]
default_ulimits=["nofile=1024:1024","nproc=1024:1024"]
netns="none"
[engine]
runtime="runc"
"""


def engine_or_skip(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of an engine that has just run a container. Skips the test if there is none."""
    if not BUSYBOX.is_file():
        pytest.skip("there is no /bin/busybox to make an image of; install busybox-static")
    configuration = folder / "containers.conf"
    configuration.write_text(CONTAINERS_CONF)
    monkeypatch.setenv("CONTAINERS_CONF", str(configuration))
    try:
        engine = find_engine()
        try_a_container(engine, folder / "image")
    except CannotRun as reason:
        pytest.skip(str(reason))
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no container can be run here: {error.stderr.decode(errors='replace').strip()[-300:]}")
    return engine


def try_a_container(engine: str, folder: Path) -> None:
    """Raises CalledProcessError if the engine cannot build an image or run a container."""
    folder.mkdir()
    shutil.copy(BUSYBOX, folder)
    (folder / "Dockerfile").write_text('FROM scratch\nCOPY busybox /bin/\nENTRYPOINT ["/bin/busybox", "true"]\n')
    for words in (["build", "-t", "stepwell/probe", str(folder)], ["run", "--rm", "stepwell/probe"]):
        subprocess.run([engine, *words], capture_output=True, check=True, timeout=60)
