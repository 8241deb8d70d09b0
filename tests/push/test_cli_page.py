"""The examples of reference/cli.md with `--env` work, on an emulated account."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stepwell.cli.main import app
from tests.documented import cli_examples, needs_aws, write_project, write_welcome
from tests.push.conftest import Aws
from tests.push.test_cli import data, ok
from tests.push.test_dead_letters import OUTCOME, Letters

BOUNDARY = "arn:aws:iam::123456789012:policy/stepwell-production-steps-eu-central-1"
KEY = "mfzg2zlo"
EXAMPLES = [example for example in cli_examples() if needs_aws(example)]


def test_the_examples_with_an_environment_work(aws: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = write_project(tmp_path)
    monkeypatch.chdir(project)
    resources = replace(aws.resources, env="production", step_boundary=BOUNDARY)
    Letters(replace(aws, resources=resources)).give_up("outcomes", OUTCOME)
    ok("signing-keys", "rotate", "--env", "production")
    (signing_key,) = data("signing-keys", "list", "--env", "production")
    ok("push", "functions/", "--env", "production")
    write_welcome(project / "functions" / "welcome", version=2)  # the version that becomes the canary
    examples = [example.replace(KEY, signing_key["id"]) for example in EXAMPLES]
    failed = {example: output for example in examples if (output := _problem(example))}
    assert not failed, "\n".join(f"{example}: {output}" for example, output in failed.items())
    assert len(EXAMPLES) > 10


def _problem(example: str) -> str:
    """What an example printed, if it failed or printed nothing."""
    words = shlex.split(example)[1:]
    text, output = (_file_after(sign, words) for sign in "<>")
    answer = text.read_text() if text else "y\n"
    result = CliRunner().invoke(app, words, input=answer, env={"COLUMNS": "200"})
    if output:
        output.write_text(result.stdout)
    return "" if result.exit_code == 0 and result.stdout else f"exit code {result.exit_code}: {result.output}"


def _file_after(sign: str, words: list[str]) -> Path | None:
    """Removes a redirection from the words of a command, and returns the file."""
    if sign not in words:
        return None
    place = words.index(sign)
    file = Path(words[place + 1])
    del words[place : place + 2]
    return file
