"""Fixtures for a server of one test: API key, HTTP client, and commands that call the server.

Each test file defines the fixture `server`.
"""

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
    """A manage key of the database `db` in the test's folder."""
    return new_key(tmp_path / "db")


@pytest.fixture
def http(server: Server, key: str) -> Iterator[Api]:
    with api(server, key) as client:
        yield client


@pytest.fixture
def columns() -> int:
    """The width of the terminal."""
    return 200


@pytest.fixture
def command(server: Server, key: str, columns: int) -> Callable[..., Any]:
    """Runs a command. Returns the JSON if `--json` is given, else the text."""

    def run(*arguments: str | Path, code: int = 0) -> Any:
        env = {"STEPWELL_URL": server.url, "STEPWELL_KEY": key, "COLUMNS": str(columns)}
        result = CliRunner().invoke(app, list(map(str, arguments)), env=env)
        assert result.exit_code == code, result.output
        return json.loads(result.stdout) if "--json" in arguments else result.stdout + result.stderr

    return run
