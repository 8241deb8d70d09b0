"""What every command shows: JSON for scripts, colours for people, errors on stderr. Exit codes: 0 done, 1 it failed or
was refused, 2 wrong usage."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import orjson
import typer
from rich.console import Console

from stepwell.core.json_input import BadJson, large_integers, parse_json

console = Console(highlight=False)
stderr = Console(stderr=True, highlight=False)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def print_json(data: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(orjson.dumps(data, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode() + "\n")
    sys.stdout.flush()


def fail(message: str, code: int = 1) -> NoReturn:
    """Print an error and end the command."""
    stderr.print("[bold red]error:[/]", end=" ")
    stderr.print(message, markup=False, soft_wrap=True)
    raise typer.Exit(code)


def warn(message: str) -> None:
    stderr.print("[bold yellow]warning:[/]", end=" ")
    stderr.print(message, markup=False, soft_wrap=True)


def json_argument(text: str, what: str) -> Any:
    """The value of an option that is JSON, `@file` or `-` for stdin. Ends the command if it is not."""
    if text == "-":
        content = sys.stdin.buffer.read()
    elif text.startswith("@"):
        try:
            content = Path(text[1:]).read_bytes()
        except OSError as error:
            fail(f"{what}: cannot read {text[1:]}: {error.strerror}", 2)
    else:
        content = text.encode(errors="surrogateescape")
    try:
        data = parse_json(content)
    except BadJson as error:
        fail(f"{what} is not JSON: {error}", 2)
    for pointer in large_integers(content):
        fail(f"{what}, {pointer}: the number does not fit into 64 bits; send it as a text", 2)
    return data
