"""The page reference/cli.md: every command with arguments and options, from the commands themselves."""

from __future__ import annotations

import inspect
import re
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

from cli_commands import commands
from tables import source, table

INTRODUCTION = f"""\
# Commands

{source("the commands in stepwell/cli")}

This page lists every command of `stepwell`. `stepwell COMMAND --help` prints the same in a terminal.

- Commands that use a server use the one at `STEPWELL_URL` (default `http://127.0.0.1:8288`). With `--env NAME` or
  `STEPWELL_ENV` they use an environment in AWS.
- `STEPWELL_KEY` is the key that they send.
- Commands that show something have `--json`, for scripts.
- The exit code is 0 if the command did what it should, 1 if not, and 2 for a wrong argument or option.

"""


def page() -> str:
    """The content of the page."""
    found = list(commands())
    rows = [(f"[`{_name(words)}`](#{_anchor(words)})", _first(command)) for words, command in found]
    return INTRODUCTION + table(("command", "does"), rows) + "".join(_section(words, c) for words, c in found)


def _name(words: tuple[str, ...]) -> str:
    return " ".join(("stepwell", *words))


def _anchor(words: tuple[str, ...]) -> str:
    return "-".join(("stepwell", *words))


def _help(command: Any) -> str:
    return inspect.cleandoc(command.help or "").replace("\b", "")


def _first(command: Any) -> str:
    """The first sentence of a command's help."""
    return re.split(r"(?<=[.])\s", " ".join(_help(command).split("\n\n")[0].split()))[0]


def _section(words: tuple[str, ...], command: Any) -> str:
    paragraphs = [" ".join(part.split()) for part in _help(command).split("\n\n")]
    text = [part for part in paragraphs if part and not part.startswith("Example: ")]
    examples = [
        line for part in paragraphs for line in re.split(r"\s*Example: ", part)[1:] if part.startswith("Example: ")
    ]
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = _options(command)
    usage = " ".join([_name(words), *map(_placeholder, arguments), *(["[OPTIONS]"] if options else [])])
    parts = [f"\n## `{_name(words)}`\n", "\n\n".join(text), "", f"```text\n{usage}\n```", ""]
    if examples:
        parts += ["```sh", *examples, "```", ""]
    if arguments:
        rows = [(f"`{p.metavar or p.name}`", _default(p), p.help or "") for p in arguments]
        parts.append(table(("argument", "default", "meaning"), rows))
    if options:
        parts.append(option_table(command))
    return "\n".join(parts)


def option_table(command: Any) -> str:
    """A row for each option of a command."""
    hints = get_type_hints(command.callback)
    rows = [(_flags(p), _value(p, hints[p.name]), _default(p), _meaning(p)) for p in _options(command)]
    return table(("option", "value", "default", "meaning"), rows)


def _options(command: Any) -> list[Any]:
    return [p for p in command.params if p.param_type_name == "option" and p.name != "help" and not p.hidden]


def _placeholder(argument: Any) -> str:
    name = (argument.metavar or argument.name).strip("[]{}").removesuffix("...").upper()
    name += "..." if argument.nargs == -1 else ""
    return name if argument.required else f"[{name}]"


def _flags(option: Any) -> str:
    flags = sorted(option.opts, key=lambda flag: not flag.startswith("--"))
    return ", ".join(f"`{flag}`" for flag in [*flags, *option.secondary_opts])


def _value(option: Any, hint: Any) -> str:
    """What an option takes, by the annotation of the command's parameter."""
    if option.is_flag:
        return ""
    kind = _plain_type(hint)
    if issubclass(kind, Enum):
        return ", ".join(f"`{choice.value}`" for choice in kind)
    bounds = option if hasattr(option, "min") else option.type
    low, high = getattr(bounds, "min", None), getattr(bounds, "max", None)
    if low is not None:
        return f"{low:g} to {high:g}" if high is not None else f"at least {low:g}"
    if option.metavar:
        return f"`{option.metavar}`"
    return {str: "text", int: "whole number", float: "number", Path: "path"}.get(kind, kind.__name__.lower())


def _plain_type(hint: Any) -> type:
    """The type of one value: `str` for `list[str] | None`."""
    if parts := [part for part in get_args(hint) if part is not type(None)]:
        return _plain_type(parts[0])
    return hint if isinstance(hint, type) else str


def _default(parameter: Any) -> str:
    if parameter.required:
        return "**required**"
    value = parameter.default
    if value is None or value is False or value in ((), [], "") or callable(value):
        return ""
    if value is True:
        return f"`{parameter.opts[0]}`"
    value = getattr(value, "value", value)
    if isinstance(value, (list, tuple)):
        value = " ".join(map(str, value))
    return f"`{value.as_posix() if isinstance(value, Path) else value}`"


def _meaning(option: Any) -> str:
    text = (option.help or "") + (" Repeatable." if option.multiple and "epeat" not in (option.help or "") else "")
    names = [option.envvar] if isinstance(option.envvar, str) else option.envvar or []
    return text + "".join(f" Variable: `{name}`." for name in names)
