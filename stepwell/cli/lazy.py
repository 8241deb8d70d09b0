"""Commands that are imported when they are used: `stepwell --help` lists them without."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command


class _Listed(TyperCommand):
    """Stands for a command: its name and its line in the list of commands."""

    def __init__(self, name: str, place: str, help: str) -> None:
        super().__init__(name, help=help)
        self._place = place

    def load(self) -> Any:
        module, _, attribute = self._place.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        parent = typer.Typer(add_completion=False)
        parent.callback()(lambda: None)  # with it, this is a group even of one command
        if isinstance(found, typer.Typer):
            parent.add_typer(found, name=self.name)
        else:
            parent.command(self.name)(found)
        group: Any = get_command(parent)
        return group.commands[self.name]


def lazy_group(package: str, commands: Mapping[str, tuple[str, str]]) -> type[TyperGroup]:
    """A group of commands: by name, where each is in the package (`module:attribute`), and its line of help."""

    class LazyGroup(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            for name, (place, help) in commands.items():
                self.add_command(_Listed(name, f"{package}.{place}", help))

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            name, command, rest = super().resolve_command(ctx, args)
            return name, command.load() if isinstance(command, _Listed) else command, rest

    return LazyGroup
