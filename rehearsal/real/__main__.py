"""`python -m rehearsal.real --env smoke`: runs the checks and prints the results, with advice for failed checks.

Exit codes: 0 all passed or did not apply, 1 a check failed, 2 wrong usage.
"""

from __future__ import annotations

import os
import time
from typing import Annotated, Any

import typer
from rich.table import Table

from rehearsal.real.account import Account
from rehearsal.real.checks import Check, Failed, Skipped, all_checks
from stepwell.aws.resources import NoEnvironment
from stepwell.cli.ui.output import JsonOption, console, fail, print_json, stderr
from stepwell.terminal import shown

Only = Annotated[
    list[str] | None, typer.Option("--only", metavar="NAME", help="A topic or a check; may be given several times.")
]
With = Annotated[
    list[str] | None,
    typer.Option("--with", metavar="NAME=VALUE", help="A value that some checks need; a skipped check names it."),
]
STYLES = {"pass": "green", "fail": "bold red", "skip": "yellow"}


def main(
    env: Annotated[str, typer.Option(help="The environment, as deployed by `cdk deploy -c env=NAME`.")] = "smoke",
    only: Only = None,
    values: With = None,
    show: Annotated[bool, typer.Option("--list", help="List the checks, their time and cost; run none.")] = False,
    emulated: Annotated[bool, typer.Option(help="Only what the emulator of `make rehearsal` can pass.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check a deployed environment: whether AWS behaves as Stepwell expects.

    It uses the account and region that the AWS CLI would use, and removes everything that it creates.

    Example: python -m rehearsal.real --env smoke --only alarms
    """
    checks = _chosen(only or [], emulated)
    if show:
        _list(checks, as_json)
        raise typer.Exit
    try:
        account = Account(env, _values(values or []), os.environ.get("AWS_ENDPOINT_URL", ""))
    except NoEnvironment as error:
        fail(str(error))
    except Exception as error:  # no credentials, no region, no permission to read the parameter
        fail(f"the environment {env} cannot be read: {error}\nSet AWS_PROFILE and AWS_REGION, and try again.")
    results = []
    try:
        for number, check in enumerate(checks, 1):
            stderr.print(f"[dim]{number}/{len(checks)} {shown(check.name)} ...[/]")
            results.append(_run(check, account))
            if not as_json:
                _print(results[-1])
    finally:
        account.close()
    _end(results, as_json)


def _run(check: Check, account: Account) -> dict[str, Any]:
    began = time.monotonic()
    try:
        with account.cleanup:
            result, text = "pass", check.run(account)
    except Skipped as reason:
        result, text = "skip", str(reason)
    except Failed as reason:
        result, text = "fail", str(reason)
    except Exception as error:  # an error from AWS, such as a missing permission
        result, text = "fail", f"{type(error).__name__}: {error}"
    seconds = round(time.monotonic() - began, 1)
    return {"check": check.name, "result": result, "title": check.title, "seen": text, "seconds": seconds}


def _print(result: dict[str, Any]) -> None:
    style = STYLES[result["result"]]
    console.print(f"[{style}]{result['result']}[/]  {shown(result['title'])} [dim]({result['seconds']} s)[/]")
    for line in result["seen"].splitlines():
        console.print(f"      {line}", markup=False, style="dim", soft_wrap=True)


def _end(results: list[dict[str, Any]], as_json: bool) -> None:
    counts = {name: sum(result["result"] == name for result in results) for name in STYLES}
    if as_json:
        print_json({"counts": counts, "checks": results})
    else:
        console.print(f"{counts['pass']} passed, {counts['fail']} failed, {counts['skip']} did not apply")
    raise typer.Exit(1 if counts["fail"] else 0)


def _list(checks: list[Check], as_json: bool) -> None:
    if as_json:
        fields = [{"check": c.name, "title": c.title, "seconds": c.seconds, "usd": c.usd} for c in checks]
        print_json(fields)
        return
    table = Table("check", "passes if", "s", "at most $", box=None, header_style="dim")
    for check in checks:
        table.add_row(shown(check.name), shown(check.title), f"{check.seconds:g}", f"{check.usd:g}")
    console.print(table)
    minutes, usd = sum(check.seconds for check in checks) / 60, sum(check.usd for check in checks)
    console.print(f"{len(checks)} checks, about {minutes:.0f} minutes, at most ${usd:.2f}")


def _chosen(only: list[str], emulated: bool) -> list[Check]:
    checks = [check for check in all_checks() if check.emulated or not emulated]
    known = {name for check in checks for name in (check.topic, check.name)}
    for name in only:
        if name not in known:
            fail(f"there is no check or topic {name}; `python -m rehearsal.real --list` shows all", 2)
    return [check for check in checks if not only or {check.topic, check.name} & set(only)]


def _values(words: list[str]) -> dict[str, str]:
    for word in words:
        if "=" not in word:
            fail(f"--with {word}: write it as NAME=VALUE", 2)
    return dict(word.split("=", 1) for word in words)


if __name__ == "__main__":
    typer.run(main)
