"""A server of a test's own: its key, its API, and commands that talk to it. Each file says what it serves: `server`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stepwell.cli.main import app
from tests.servers import Api, Server, api, new_key


@pytest.fixture
def key(tmp_path: Path) -> str:
    """Of the database `db` in the test's folder."""
    return new_key(tmp_path / "db")


@pytest.fixture
def http(server: Server, key: str) -> Iterator[Api]:
    with api(server, key) as client:
        yield client


@pytest.fixture
def columns() -> int:
    """Of the terminal."""
    return 200


@pytest.fixture
def command(server: Server, key: str, columns: int) -> Callable[..., Any]:
    """Runs a command: its JSON, if that is asked for, else its text."""

    def run(*arguments: str | Path, code: int = 0) -> Any:
        env = {"STEPWELL_URL": server.url, "STEPWELL_KEY": key, "COLUMNS": str(columns)}
        result = CliRunner().invoke(app, list(map(str, arguments)), env=env)
        assert result.exit_code == code, result.output
        return json.loads(result.stdout) if "--json" in arguments else result.stdout + result.stderr

    return run
