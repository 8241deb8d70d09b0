"""`stepwell init`: creates a function from a template.

A template is a folder with a valid function. The id, name and trigger are replaced, the other files are copied.
Existing files are never overwritten.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import unicodedata
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from stepwell.cli.commands.schema import SchemaKind, write_schema
from stepwell.cli.ui.output import JsonOption, ask, console, fail, print_json, stderr
from stepwell.core.definition.definition import DefinitionError, parse_definition
from stepwell.core.terminal_text import one_line
from stepwell.project.load import NAMES
from stepwell.terminal import shown

_TEMPLATES = Path(__file__).with_name("templates")
_DEFINITION = "stepwell.json"
_SCHEMA = "./.stepwell/function.schema.json"  # in a folder that is not part of a step's code
_DEFAULT_NAME = "hello"
_DEFAULT_EVENT = "user/signed.up"


class Template(StrEnum):
    SH = "sh"
    PYTHON = "python"
    NODE = "node"
    HANDLER = "handler"
    DOCKER = "docker"


def command(
    name: Annotated[str | None, typer.Argument(help="The function's name; the id is derived from it.")] = None,
    template: Annotated[
        Template | None,
        typer.Option(
            "--template", "-t", help="The kind of step: a program in sh, python or node, a Lambda handler, a container."
        ),
    ] = None,
    event: Annotated[
        str | None, typer.Option("--event", "-e", help="The name of the event that starts the function.")
    ] = None,
    path: Annotated[Path | None, typer.Option("--path", help="The folder to create; default: the function's id.")] = (
        None
    ),
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Write the definition in YAML.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Create a function in a new folder, ready to run. On a terminal, the command asks for missing values.

    Example: stepwell init send-welcome --template python --event user/signed.up
    """
    name = name or _ask("Name", _DEFAULT_NAME)
    template = template or Template(_ask("Template", Template.PYTHON.value, list(Template)))
    event = event or _ask("Starts on the event", _DEFAULT_EVENT)
    definition = _definition(template, name, event)
    folder = path or Path(definition["id"])
    try:
        files = _write(template, definition, folder, as_yaml)
    except OSError as error:
        fail(f"cannot write {error.filename}: {error.strerror}")
    commands = _next(template, folder)
    if as_json:
        print_json({"id": definition["id"], "folder": str(folder), "files": list(map(str, files)), "next": commands})
        return
    for file in files:
        console.print(f"[green]created[/]  {shown(str(file))}", soft_wrap=True)
    console.print("\nNext:")
    for line in commands:
        console.print(f"  {one_line(line)}", markup=False, soft_wrap=True)


def _ask(label: str, default: str, choices: list[Template] | None = None) -> str:
    """Asks for a value if stdin is a terminal; returns the default otherwise."""
    if not sys.stdin.isatty():
        return default
    question = f"{label} ({', '.join(choices)})" if choices else label
    while True:
        answer = ask(question, default)
        if choices is None or answer in choices:
            return answer
        stderr.print(f"{answer!r} is not one of these", markup=False)


def _definition(template: Template, name: str, event: str) -> dict[str, Any]:
    """The template's definition with this name and trigger. Ends the command if the result is not valid."""
    function_id = _id(name)
    if not function_id:
        fail(f"the name {name!r} has no letters or digits to make an id from; use a name like send-welcome", 2)
    given = orjson.loads((_TEMPLATES / template / _DEFINITION).read_bytes())
    names = {"id": function_id} if name == function_id else {"name": name, "id": function_id}
    definition: dict[str, Any] = {**names, "triggers": [{"event": event}], "steps": given["steps"]}
    try:
        parse_definition(definition)
    except DefinitionError as error:
        fail(str(error), 2)
    return definition


def _id(name: str) -> str:
    """`Send a Mél!` -> `send-a-mel`: everything except letters and digits becomes a hyphen."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:64].rstrip("-")


def _write(template: Template, definition: dict[str, Any], folder: Path, as_yaml: bool) -> list[Path]:
    """Writes the function's files and returns their paths, the definition first. Ends the command if one of them, or
    another definition, exists."""
    source = _TEMPLATES / template
    code = [
        path.relative_to(source)
        for path in sorted(source.rglob("*"))
        if path.is_file() and path.name != _DEFINITION and "__pycache__" not in path.parts
    ]
    for name in (*map(Path, NAMES), *code):
        if (folder / name).exists():
            fail(f"{folder / name} already exists; choose another name or --path")
    main = folder / ("stepwell.yaml" if as_yaml else _DEFINITION)
    folder.mkdir(parents=True, exist_ok=True)
    for name in code:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, folder / name)
    files = [folder / name for name in code]
    if not (folder / _SCHEMA).exists():
        files.append(write_schema(SchemaKind.FUNCTION, folder / _SCHEMA))
    main.write_text(
        _text(definition, as_yaml), "utf-8"
    )  # last, so that a server that watches the folder never loads half a function
    return [main, *files]


def _text(definition: dict[str, Any], as_yaml: bool) -> str:
    """The definition as JSON or YAML, with a reference to the schema for editors."""
    if as_yaml:
        import yaml

        text: str = yaml.safe_dump(definition, sort_keys=False, allow_unicode=True, width=120)
        return f"# yaml-language-server: $schema={_SCHEMA}\n{text}"
    definition = {"$schema": _SCHEMA, **definition}
    return orjson.dumps(definition, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def _next(template: Template, folder: Path) -> list[str]:
    where = shlex.quote(str(folder))
    if template is Template.DOCKER and not any(map(shutil.which, ("docker", "podman"))):
        return [f"stepwell run --no-containers {where}", f"stepwell dev --no-containers {where}"]
    return [f"stepwell run {where}", f"stepwell dev {where}"]
