"""The modules that commands import at the start. Modules are checked, because times depend on the machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stepwell.cli.main import COMMANDS, app

SERVERS = {"starlette", "uvicorn", "uvloop", "watchfiles", "sqlite3", "asyncio.subprocess", "stepwell.local"}
LIBRARIES = {"boto3", "cel_expr_python", "genson", "jsonschema", "jsonschema_rs", "pathspec", "yaml"}
OURS = {"stepwell.api", "stepwell.aws", "stepwell.core.definition.model", "stepwell.engine", "stepwell.project"}
SCRIPT = """
import contextlib, sys
from stepwell.cli.main import main
with contextlib.suppress(SystemExit):
    main()
print("modules:", *sys.modules)
"""


def imported(*arguments: str) -> set[str]:
    """The modules that a command imports, and the packages that contain them."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        env={"STEPWELL_URL": "http://127.0.0.1:9", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.rpartition("modules: ")[2].split())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_imports_none_of_the_commands(arguments: list[str]) -> None:
    found = imported(*arguments)
    assert not found & (SERVERS | LIBRARIES | OURS | {"asyncio", "httpx", "ssl", "stepwell.cli.commands.runs"})


@pytest.mark.parametrize("arguments", [["runs"], ["runs", "show", "x"], ["events"], ["functions"], ["send", "x"]])
def test_a_command_that_calls_a_server_does_not_import_the_server(arguments: list[str]) -> None:
    assert not imported(*arguments) & (SERVERS | LIBRARIES | OURS)


def test_a_server_imports_only_what_the_functions_need(tmp_path: Path) -> None:
    """Modules that only files for git, `.env`, types and http steps need are not imported."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys, stepwell.dev.server, stepwell.local.serve; print(*sys.modules)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    items = {"dotenv", "genson", "http.cookiejar", "httpx", "jsonschema", "jsonschema_rs", "pathspec"}
    assert not items & set(done.stdout.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_or_its_commands(name: str) -> None:
    done = CliRunner().invoke(app, [name, "--help"])
    assert done.exit_code == 0, done.output
    assert f"Example: stepwell {name}" in done.output or "Commands" in done.output


def test_a_command_that_is_misspelt_is_guessed() -> None:
    done = CliRunner().invoke(app, ["aprove"])
    assert done.exit_code == 2
    assert "Did you mean 'approve'" in done.output
