"""Lazy commands: each module is imported when the command is used, so `stepwell --help` stays fast."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command


class _Placeholder(TyperCommand):
    """A command that is not imported yet: name and help line, for the list of commands."""

    def __init__(self, name: str, location: str, help: str) -> None:
        super().__init__(name, help=help)
        self._location = location

    def load(self) -> Any:
        """Imports and returns the real command."""
        module, _, attribute = self._location.partition(":")
        app_or_function = getattr(importlib.import_module(module), attribute)
        parent = typer.Typer(add_completion=False)
        parent.callback()(lambda: None)  # makes Typer build a group even for a single command
        if isinstance(app_or_function, typer.Typer):
            parent.add_typer(app_or_function, name=self.name)
        else:
            parent.command(self.name)(app_or_function)
        group: Any = get_command(parent)
        command = group.commands[self.name]
        for subcommand in getattr(command, "commands", {}).values():
            subcommand.short_help = _first_sentence(subcommand.help or "")
        return command


def _first_sentence(text: str) -> str:
    """The line for a list of commands; a command's own help shows the whole text."""
    return re.split(r"(?<=\.)\s", text.strip(), maxsplit=1)[0].replace("\n", " ")


def lazy_group(package: str, commands: Mapping[str, tuple[str, str]]) -> type[TyperGroup]:
    """Returns a group class that imports commands on use.

    `commands` maps a name to the location in the package (`module:attribute`) and the help line.
    """

    class LazyGroup(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            for name, (location, help) in commands.items():
                self.add_command(_Placeholder(name, f"{package}.{location}", help))

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            name, command, rest = super().resolve_command(ctx, args)
            return name, command.load() if isinstance(command, _Placeholder) else command, rest

    return LazyGroup
