"""The command of `rehearsal.real`: it finds checks, runs them and prints the results. No account is used here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from rehearsal.real import __main__ as command
from rehearsal.real.checks import Check, Failed, Skipped, all_checks
from stepwell.core.definition.definition import parse_definition


class StandIn:
    """A stand-in for the account, with the parts that the command uses."""

    def __init__(self) -> None:
        from contextlib import ExitStack

        self.cleanup, self.undone = ExitStack(), []

    def close(self) -> None:
        self.undone.append("closed")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Result, StandIn]]:
    app = typer.Typer()
    app.command()(command.main)

    def run(checks: dict[str, Callable[[Any], str]], *words: str) -> tuple[Result, StandIn]:
        account = StandIn()
        found = [Check("topic", f"The title of {name}", check, 1, 0, False) for name, check in checks.items()]
        monkeypatch.setattr(command, "all_checks", lambda: found)
        monkeypatch.setattr(command, "Account", lambda *arguments: account)
        return CliRunner().invoke(app, ["--env", "smoke", *words]), account

    return run


def passes(account: StandIn) -> str:
    account.cleanup.callback(account.undone.append, "undone")
    return "seen"


def fails(account: StandIn) -> str:
    account.cleanup.callback(account.undone.append, "undone")
    raise Failed("not as it should be")


def does_not_apply(account: StandIn) -> str:
    raise Skipped("there are no containers")


def breaks(account: StandIn) -> str:
    raise RuntimeError("AccessDenied")


def test_each_check_is_a_sentence_with_its_time_and_cost() -> None:
    checks = all_checks()
    assert checks[0].topic == "basics"
    assert len({check.name for check in checks}) == len(checks)
    for check in checks:
        assert not check.title[0].islower()
        assert not check.title.endswith(".")
        assert 0 < check.seconds <= 1200
        assert 0 <= check.usd <= 0.5


def test_the_functions_of_checks_are_valid() -> None:
    texts = [
        value
        for name, module in sorted(sys.modules.items())
        if name.startswith("rehearsal.real.checks_")
        for value in vars(module).values()
        if isinstance(value, str) and value.startswith("id: ")
    ]
    texts += [file.read_text() for file in (Path(command.__file__).parent / "functions").glob("*/stepwell.yaml")]
    assert len(texts) >= 5
    for text in texts:
        parse_definition(yaml.safe_load(text))


def test_passed_and_skipped_checks_exit_with_0(run: Callable[..., tuple[Result, StandIn]]) -> None:
    result, account = run({"passes": passes, "does_not_apply": does_not_apply})
    assert result.exit_code == 0
    assert "1 passed, 0 failed, 1 did not apply" in result.output
    assert account.undone == ["undone", "closed"]


@pytest.mark.parametrize("check", [fails, breaks])
def test_other_checks_run_after_a_failed_check(
    run: Callable[..., tuple[Result, StandIn]], check: Callable[[Any], str]
) -> None:
    result, account = run({"wrong": check, "passes": passes}, "--json")
    assert result.exit_code == 1
    printed = json.loads(result.stdout)
    assert printed["counts"] == {"pass": 1, "fail": 1, "skip": 0}
    assert printed["checks"][0]["seen"] in ("not as it should be", "RuntimeError: AccessDenied")
    assert account.undone[-2:] == ["undone", "closed"]


def test_a_failed_cleanup_is_a_failure(run: Callable[..., tuple[Result, StandIn]]) -> None:
    def leaves_something(account: StandIn) -> str:
        account.cleanup.callback(breaks, account)
        return "seen"

    result, _ = run({"leaves_something": leaves_something}, "--json")
    assert json.loads(result.stdout)["checks"][0]["result"] == "fail"


def test_a_topic_or_a_check_can_be_chosen_and_a_wrong_name_is_refused(
    run: Callable[..., tuple[Result, StandIn]],
) -> None:
    result, _ = run({"passes": passes, "fails": fails}, "--only", "topic.passes")
    assert result.exit_code == 0
    result, _ = run({"passes": passes}, "--only", "nothing")
    assert result.exit_code == 2
    assert "there is no check or topic nothing" in result.output


def test_the_list_runs_no_check(run: Callable[..., tuple[Result, StandIn]]) -> None:
    result, account = run({"fails": fails}, "--list", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)[0]["title"].startswith("The title of")
    assert account.undone == []
