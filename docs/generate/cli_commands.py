"""The commands of `stepwell`, with their arguments and options."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from stepwell.cli.main import app


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """The words of each command and the command itself, in the order of `stepwell --help`. A group that does something
    without a further word is a command, too."""
    for name, listed in get_command(app).commands.items():  # type: ignore[attr-defined]
        command = listed.load()
        subcommands = getattr(command, "commands", {})
        if not subcommands or command.invoke_without_command:
            yield (name,), command
        for subname, subcommand in subcommands.items():
            yield (name, subname), subcommand
