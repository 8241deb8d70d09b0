"""The definition that the contract began with runs exactly as written; docs/reference/definition.md has its fields."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from stepwell.cli.main import app
from tests.containers import BUSYBOX, engine_or_skip

FUNCTION = Path(__file__).parent / "fixtures" / "section-two"
EVENT = '{"name": "user/signed.up", "user": {"created_at": "%s"}}'


@pytest.fixture
def function(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FUNCTION, tmp_path / "function"))


@pytest.fixture
def with_containers(function: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The function with an image that is made without a registry. Skips the test if no container can be run."""
    engine_or_skip(tmp_path, monkeypatch)
    shutil.copy(BUSYBOX, function / "steps" / "send-sms-dispatch" / "busybox")
    return function


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
