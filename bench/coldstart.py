"""Measures how long the engine's Lambdas take to start: imports, first clients and logger, each in a fresh process.

On Lambda, the time to create a sandbox and to start Python comes on top. Lambda also has a processor of a different
speed: a whole one during imports, and later the share that the memory buys.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from stepwell.aws.resources import VARIABLE, Resources

ROOT = Path(__file__).resolve().parent.parent
TIMES = 5
AIM_MS = {"ingest": 400}
CLIENTS = {  # clients that the first invocation needs
    "ingest": ("dynamodb", "events"),
    "route": ("dynamodb", "lambda"),
    "advance": ("dynamodb", "lambda"),
    "tick": ("dynamodb", "sqs"),
    "api": ("dynamodb",),
    "step_http": (),
}
PROGRAM = """
import json, sys, time
began = time.perf_counter()
__import__("lambdas." + sys.argv[1])
imported = time.perf_counter()
from stepwell.aws.clients import client
for service in sys.argv[2:]:
    client(service)
from stepwell.aws import observability
observability._logger()
print(json.dumps([1000 * (imported - began), 1000 * (time.perf_counter() - imported), len(sys.modules)]))
"""
_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)")
RESOURCES = Resources(
    env="bench",
    region="us-east-1",
    account="123456789012",
    table="stepwell",
    bus="stepwell",
    events_queue="https://sqs.us-east-1.amazonaws.com/123456789012/events",
    events_queue_arn="",
    outcomes_queue="https://sqs.us-east-1.amazonaws.com/123456789012/outcomes",
    outcomes_queue_arn="",
    bucket="stepwell",
    step_http="step-http",
)


def begin(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Starts a Lambda's process. Raises CalledProcessError if the module cannot be imported."""
    resources = replace(RESOURCES, ingest="bus").to_json()
    fields = {VARIABLE: resources, "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}
    environment = {**os.environ, **fields, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *options, "-c", PROGRAM, name, *CLIENTS[name]]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


def measure(name: str) -> dict[str, float]:
    """Medians in ms. The first start is left out: it may write bytecode, which a deployed Lambda already has."""
    begin(name)
    rows = [json.loads(begin(name).stdout) for _ in range(TIMES)]
    imports, made, modules = (statistics.median(column) for column in zip(*rows, strict=True))
    return {"imports_ms": imports, "clients_ms": made, "total_ms": imports + made, "modules": modules}


def packages(name: str) -> Counter[str]:
    """The time of imports, in ms by package."""
    found: Counter[str] = Counter()
    for microseconds, module in _IMPORT.findall(begin(name, "-X", "importtime").stderr):
        top, _, rest = module.partition(".")
        found[f"{top}.{rest.partition('.')[0]}" if top == "stepwell" else top] += int(microseconds)
    return Counter({package: round(number / 1000) for package, number in found.items() if number >= 1000})


def main(
    why: Annotated[bool, typer.Option(help="Print the packages whose imports take longest.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Measures how long each of the engine's Lambdas takes to start."""
    with Console(stderr=True).status("starting processes"):
        results = {name: measure(name) for name in CLIENTS}
    if as_json:
        print(json.dumps(results, indent=2))
    else:
        show(results)
    if why:
        for name in CLIENTS:
            most = packages(name).most_common(12)
            print(f"{name}: {', '.join(f'{package} {ms} ms' for package, ms in most)}")
    missed = {name: aim for name, aim in AIM_MS.items() if results[name]["total_ms"] > aim}
    for name, aim in missed.items():
        Console(stderr=True).print(f"[red]missed: {name} should start within {aim} ms")
    raise typer.Exit(1 if missed else 0)


def show(results: dict[str, dict[str, float]]) -> None:
    table = Table("ms", "imports", "clients, logger", "in all", "modules", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, item in results.items():
        table.add_row(name, *(f"{value:,.0f}" for value in item.values()))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
