"""Computes what runs cost on AWS: counts the requests of the real handlers, and adds everything else that is billed.

Nothing is deployed or charged. docs/operate/cost.md explains the numbers and shows the results. The counts are stored
in aws_results.json, so the page can be written again within a second.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from aws_counts import ALL
from aws_dollars import AIMS, Bill, Results
from aws_report import in_docs, show
from aws_standing import standing
from rich.console import Console

from infra.settings import Settings

HERE = Path(__file__).resolve().parent
DOCS, SAVED = HERE.parent / "docs" / "operate" / "cost.md", HERE / "aws_results.json"
PARTS = (*ALL, "standing")


def environments() -> dict[str, Settings]:
    """Two environments as `cdk deploy` creates them: with the default settings, and with `-c profile=dev`."""
    context = {"env": "dev", "profile": "dev"}
    known = {setting.name for setting in fields(Settings)}
    if "profile" not in known:
        context = {"env": "dev", "alarms": "false", "dashboard": "false", "point_in_time_recovery": "false"}
    return {"default": Settings(env="default"), "profile=dev": Settings.from_context(context.get, context)}


def saved() -> Results:
    results: Results = json.loads(SAVED.read_text()) if SAVED.exists() else {}
    return results


def counted(parts: tuple[str, ...], console: Console) -> Results:
    """The stored results, with these parts counted again."""
    results = saved()
    for part in parts:
        with console.status(f"counting: {part}"):
            results[part] = standing(environments()) if part == "standing" else ALL[part]()
    results["day"] = datetime.now(UTC).date().isoformat()
    results["machine"] = f"{os.cpu_count()} cores of {_processor()}, Python {platform.python_version()}"
    return results


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def main(
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
    write_docs: Annotated[
        bool, typer.Option(help="Store the counts, and write the tables of docs/operate/cost.md.")
    ] = False,
    only: Annotated[
        str,
        typer.Option(help=f"Count only these parts, and take the rest from the stored results: {', '.join(PARTS)}."),
    ] = "",
    from_saved: Annotated[bool, typer.Option(help="Do not count: use the stored results.")] = False,
) -> None:
    """Computes what runs cost on AWS."""
    console = Console(stderr=True)
    parts = () if from_saved else tuple(only.split(",")) if only else PARTS
    if unknown := set(parts) - set(PARTS):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    results = saved() if from_saved else counted(parts, console)
    bill = Bill(results)
    if as_json:
        print(json.dumps(results, indent=2))
    else:
        show(bill)
    if write_docs:
        SAVED.write_text(json.dumps(results, indent=1) + "\n")
        DOCS.write_text(in_docs(DOCS.read_text(), bill))
    missed = [text for text, holds in AIMS if not holds(bill)]
    for text in missed:
        console.print(f"[red]missed: {text}")
    raise typer.Exit(1 if missed else 0)


if __name__ == "__main__":
    typer.run(main)
