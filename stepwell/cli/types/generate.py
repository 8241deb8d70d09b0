"""`stepwell types generate`: writes typed code for senders of events, and for steps that receive them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from stepwell.cli.ui.output import JsonOption, console, fail, print_json
from stepwell.terminal import shown


class Lang(StrEnum):
    PYTHON = "python"
    TYPESCRIPT = "typescript"


def command(
    lang: Annotated[Lang, typer.Option(help="The language.")],
    out: Annotated[Path, typer.Option(help="The folder to write to; each event gets one file.")],
    paths: Annotated[list[Path] | None, typer.Argument(help="Folders with schemas/ folders.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Generate code from the newest version of each event type in the schemas/ folders. Python code comes from
    datamodel-code-generator, TypeScript code from json-schema-to-typescript.

    Example: stepwell types generate functions/ --lang python --out src/events
    """
    from stepwell.event_types.generate import CannotGenerate, file_name, generate
    from stepwell.project.schemas import find_types

    found = find_types(paths or [Path()])
    if found.problems:
        fail("\n".join(map(str, found.problems)))
    if not found.types:
        fail("no types found; a schemas/ folder must contain a file such as order/placed.1.schema.json")
    written: dict[Path, str] = {}
    for name, versions in found.by_name().items():
        newest = versions[-1]
        target = out / file_name(name, lang.value)
        if target in written:
            fail(f"{name} and {written[target]} would both be written to {target}; generate one to another folder")
        try:
            text = generate(name, newest.v, newest.schema, lang.value)
        except CannotGenerate as error:
            fail(str(error))
        out.mkdir(parents=True, exist_ok=True)
        target.write_text(text, "utf-8")
        written[target] = name
        if not as_json:
            console.print(f"wrote {shown(target)}  [dim]{shown(name)} {shown(newest.v)}[/]", soft_wrap=True)
    if as_json:
        print_json([{"event": name, "file": str(file)} for file, name in written.items()])
