"""Output that all commands share: JSON for scripts, colours for people, errors on stderr.

Exit codes: 0 for success, 1 if the command failed or was refused, 2 for wrong usage.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import orjson
import typer

from stepwell.core.json_input import BadJson, large_integers, parse_json
from stepwell.core.terminal_text import escaped_json, one_line
from stepwell.terminal import Terminal

console = Terminal()
stderr = Terminal(stderr=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def print_json(data: Any) -> None:
    """Prints one JSON document on stdout."""
    text = orjson.dumps(data, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode()
    sys.stdout.write(escaped_json(text) + "\n")
    sys.stdout.flush()


def fail(message: str, code: int = 1) -> NoReturn:
    """Prints an error and ends the command."""
    stderr.print("[bold red]error:[/]", end=" ")
    stderr.print(_indented(message), markup=False, soft_wrap=True)
    raise typer.Exit(code)


def warn(message: str) -> None:
    stderr.print("[bold yellow]warning:[/]", end=" ")
    stderr.print(_indented(message), markup=False, soft_wrap=True)


def _indented(message: str) -> str:
    """Indents all lines after the first, so that none looks like a separate message."""
    return "\n  ".join(message.splitlines())


def confirm(question: str, *, err: bool = False) -> bool:
    """Asks a yes/no question."""
    return typer.confirm(one_line(question), err=err)


def ask(question: str, default: str = "", *, hide: bool = False) -> str:
    """Asks for a line of text; an empty line means the default. `hide` turns off the echo."""
    answer = typer.prompt(one_line(question), default=default, show_default=bool(default), hide_input=hide, err=True)
    return str(answer).strip()


def json_argument(text: str, what: str) -> Any:
    """Parses the value of an option: JSON, `@file`, or `-` for stdin. Ends the command if it is not JSON.

    `what` names the option in errors.
    """
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
        fail(f"{what}, {pointer}: the number does not fit into 64 bits; send it as a text in quotes", 2)
    return data
