"""The definition in section 2 of the design runs exactly as it is written."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from stepwell.cli.main import app
from stepwell.local.runners.image import find_engine
from stepwell.local.runners.job import CannotRun

FUNCTION = Path(__file__).parent / "fixtures" / "section-two"
BUSYBOX = Path("/bin/busybox")
EVENT = '{"name": "user/signed.up", "user": {"created_at": "%s"}}'
CONTAINERS_CONF = """\
[containers]
default_ulimits=["nofile=1024:1024","nproc=1024:1024"]
netns="none"
[engine]
runtime="runc"
"""


@pytest.fixture
def function(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FUNCTION, tmp_path / "function"))


@pytest.fixture
def with_containers(function: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The function, its image one that is made without a registry. Skips where no container can be run."""
    if not BUSYBOX.is_file():
        pytest.skip("there is no /bin/busybox to make an image of; install busybox-static")
    configuration = tmp_path / "containers.conf"
    configuration.write_text(CONTAINERS_CONF)
    monkeypatch.setenv("CONTAINERS_CONF", str(configuration))
    try:
        try_a_container(find_engine(), tmp_path / "image")
    except CannotRun as reason:
        pytest.skip(str(reason))
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no container can be run here: {error.stderr.decode(errors='replace').strip()[-300:]}")
    shutil.copy(BUSYBOX, function / "steps" / "send-sms-dispatch" / "busybox")
    return function


def try_a_container(engine: str, folder: Path) -> None:
    """Raises CalledProcessError if this engine answers, but cannot build an image or run it."""
    folder.mkdir()
    shutil.copy(BUSYBOX, folder)
    (folder / "Dockerfile").write_text('FROM scratch\nCOPY busybox /bin/\nENTRYPOINT ["/bin/busybox", "true"]\n')
    for words in (["build", "-t", "stepwell/probe", str(folder)], ["run", "--rm", "stepwell/probe"]):
        subprocess.run([engine, *words], capture_output=True, check=True, timeout=60)


def run(function: Path, created_at: str, *options: str) -> Any:
    result = CliRunner().invoke(app, ["run", str(function), "--json", "--event", EVENT % created_at, *options])
    assert result.exit_code == 0, result.output
    return orjson.loads(result.stdout)


def test_section_two_runs_without_containers(function: Path) -> None:
    ended = run(function, "2024-03-01", "--no-containers")
    assert ended["status"] == "completed"
    assert ended["output"] == {"step-2": {"created_at": "2024-03-01", "sms": {"sent": True}}}


def test_section_two_runs_with_a_container(with_containers: Path) -> None:
    ended = run(with_containers, "2024-03-01")
    assert ended["status"] == "completed"
    assert ended["output"] == {"step-2": {"created_at": "2024-03-01", "sms": {"sent": True}}}


def test_section_two_starts_only_for_users_since_2020(function: Path) -> None:
    event = EVENT % "2019-12-31"
    result = CliRunner().invoke(app, ["run", str(function), "--event", event, "--no-containers"])
    assert result.exit_code == 1
    assert "does not start prompt-deer-ede40d" in result.output
