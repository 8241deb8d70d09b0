"""Finds functions on disk, and loads one with the code of its steps.

All problems of a function are reported at once, each with the file, line and column.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stepwell.core.definition.definition import DefinitionError, parse_definition
from stepwell.core.definition.model import CUE, Definition, Step
from stepwell.core.definition.problems import Pointer
from stepwell.core.definition.runtimes import Lambda, Wasm
from stepwell.project import inngest
from stepwell.project.code import CodeError, StepCode, read_code, resolve
from stepwell.project.convention import dockerfile, entry, handler_file
from stepwell.project.json_text import parse_json
from stepwell.project.search import NAMES as NAMES
from stepwell.project.search import Tree, is_file, is_folder
from stepwell.project.source import LoadError as LoadError
from stepwell.project.source import PlacedProblem as PlacedProblem
from stepwell.project.source import Source, SourceError
from stepwell.project.wasm_module import check_module, find_module

_LARGEST = 1024 * 1024
_RELOADS = 5


@dataclass(frozen=True, slots=True)
class LoadedFunction:
    definition: Definition
    source: Source
    file: Path
    folder: Path
    steps: dict[str, StepCode]  # only steps that have code
    commands: dict[str, tuple[str, ...]]  # found by convention, for lambda steps without a command
    modules: dict[str, str] = field(default_factory=dict)  # files of wasm steps, in their code
    schemas: dict[int, Any] = field(default_factory=dict)  # by the trigger's index; only schemas in files of their own

    def normalised(self) -> dict[str, Any]:
        """The normalised definition, with the commands and modules found by convention, and the schemas from files. So
        a reader needs no other file."""
        data = self.definition.normalised()
        for number, schema in self.schemas.items():
            data["triggers"][number]["definition"]["def"] = schema
        for step_id, command in self.commands.items():
            data["steps"][step_id]["runtime"]["command"] = list(command)
        for step_id, module in self.modules.items():
            data["steps"][step_id]["runtime"]["module"] = module
        return data

    def warnings(self) -> list[PlacedProblem]:
        """Problems that are allowed, but probably not intended."""
        return [self.placed(p.pointer, p.message) for p in self.definition.warnings()]

    def placed(self, pointer: Pointer, message: str) -> PlacedProblem:
        """A problem at a place in the definition."""
        return _placed(self.file, self.source, pointer, message)


def find_definitions(paths: Iterable[Path]) -> list[Path]:
    """The definition files at or below each path, sorted.

    Raises LoadError if a path does not exist, or if a folder has two definitions.
    """
    files, problems = _search(Tree.of(paths))
    if problems:
        raise LoadError(problems)
    return files


def load(path: Path) -> LoadedFunction:
    """Loads a function from a definition file, or from the folder that contains it. Raises LoadError."""
    if is_folder(path):
        files, problems = _definitions(path, NAMES)
        if problems:
            raise LoadError(problems)
        if not files:
            raise LoadError([PlacedProblem(path, 1, 1, (), _why_none(path))])
        path = files[0]
    stamp, function = _stamp(path), _load(path)
    for _ in range(_RELOADS):
        now = _stamp(path)
        if now == stamp:
            break
        stamp, function = now, _load(path)  # it was saved while its code was read, so the two may not match
    _, problems = _definitions(path.parent, NAMES)
    if problems and path.name in NAMES:
        raise LoadError(problems)
    return function


def _load(path: Path) -> LoadedFunction:
    source = read_source(path)
    if path.name == inngest.NAME:
        source = replace(source, data=inngest.with_containers(source.data, path.parent))
    try:
        definition = parse_definition(source.data, source.written)
    except DefinitionError as refused:
        problems = [_placed(path, source, p.pointer, p.message) for p in refused.problems]
        raise LoadError(sorted(problems, key=lambda p: (p.line, p.column))) from None
    return _with_code(path, source, definition)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Inode, size and modification time: they change when the file is saved."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def load_all(
    paths: Iterable[Path], load_one: Callable[[Path], LoadedFunction] = load
) -> tuple[list[LoadedFunction], list[LoadError]]:
    """Loads every function at or below each path. A function that cannot be loaded does not stop the others."""
    files, problems = _search(Tree.of(paths))
    errors = [LoadError([problem]) for problem in problems]
    loaded: dict[str, LoadedFunction] = {}
    for file in files:
        try:
            function = load_one(file)
        except LoadError as error:
            errors.append(error)
            continue
        other = loaded.setdefault(function.definition.id, function)
        if other is not function:
            message = f"the id {function.definition.id!r} is already used by {other.file}; change one of them"
            errors.append(LoadError([_placed(file, function.source, ("id",), message)]))
    return list(loaded.values()), errors


def _search(tree: Tree) -> tuple[list[Path], list[PlacedProblem]]:
    files = {path for path in tree.paths if is_file(path) and not inngest.is_settings(path)}
    problems = list(tree.problems)
    for folder in tree.folders:
        found, wrong = _definitions(folder.path, folder.names)
        files.update(found)
        problems += wrong
    return sorted(files), problems


def _definitions(folder: Path, names: Container[str]) -> tuple[list[Path], list[PlacedProblem]]:
    """The definition file of a folder with these names (at most one), and the problems."""
    files = [folder / name for name in NAMES if name in names and is_file(folder / name)]
    found = [file for file in files if not inngest.is_settings(file)]
    if len(found) < 2:
        return found, []
    message = f"the folder has another definition, {found[0].name}; a folder is one function, so remove one of them"
    return [], [PlacedProblem(file, 1, 1, (), message) for file in found[1:]]


def _why_none(folder: Path) -> str:
    """The reason why a folder has no definition, for a message."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    for name in names:
        if inngest.is_settings(folder / name):
            return f"found no definition: in {name}, {inngest.NOT_A_FUNCTION}"
        if name in NAMES:
            return f"has no definition: {name} is not a file, or a link that does not lead to a file"
        if name.lower() in NAMES:
            return f"has no definition, but {name!r}; rename it to {name.lower()}"
    return f"found no definition; add one of {', '.join(NAMES)}"


def read_source(path: Path) -> Source:
    """Reads a JSON or YAML file. Raises LoadError."""

    def refuse(message: str, line: int = 1, column: int = 1) -> LoadError:
        return LoadError([PlacedProblem(path, line, column, (), message)])

    parse: Callable[[str], Source] = parse_json
    if path.suffix != ".json":
        from stepwell.project.yaml_text import parse_yaml as parse  # imported only if needed: PyYAML is slow to import
    try:
        if not path.is_file() or path.suffix not in (".json", ".yaml", ".yml"):
            raise refuse("is not a definition; name a file that ends in .json, .yaml or .yml, or its folder")
        if path.stat().st_size > _LARGEST:
            raise refuse("is larger than 1 MB; move large data into files beside the step")
        content = path.read_bytes()
        return parse(content.decode("utf-8-sig"))
    except OSError as error:
        raise refuse(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        before = content[: error.start]
        column = error.start - before.rfind(b"\n")
        raise refuse("is not in UTF-8; save it as UTF-8", before.count(b"\n") + 1, column) from None
    except SourceError as error:
        raise refuse(error.message, error.line, error.column) from None


def _with_code(file: Path, source: Source, definition: Definition) -> LoadedFunction:
    steps: dict[str, StepCode] = {}
    commands: dict[str, tuple[str, ...]] = {}
    modules: dict[str, str] = {}
    problems: list[PlacedProblem] = []
    read: dict[Path, StepCode] = {}  # several steps can have the same code
    for step_id, step in definition.steps.items():
        pointer: Pointer = ("steps", step_id, "path")
        try:
            if step.path:
                place = resolve(file.parent, step.path)
                read[place] = steps[step_id] = read.get(place) or read_code(place, file.parent)
                commands |= _entry(step_id, step, read[place])
                if isinstance(step.runtime, Wasm):
                    modules[step_id] = find_module(read[place], step.runtime.module)
                    check_module(read[place].folder / modules[step_id], step.runtime.memory)
        except CodeError as error:
            problems.append(_placed(file, source, pointer, f"step `{step_id}`: {error}"))
    schemas, wrong = _schemas(file, source, definition)
    if problems or wrong:
        raise LoadError([*wrong, *problems])
    return LoadedFunction(definition, source, file, file.parent, steps, commands, modules, schemas)


def _schemas(file: Path, source: Source, definition: Definition) -> tuple[dict[int, Any], list[PlacedProblem]]:
    """The schemas that triggers have in files of their own, and the problems of all triggers' schemas."""
    found: dict[int, Any] = {}
    problems: list[PlacedProblem] = []
    for i, trigger in enumerate(definition.triggers):
        if trigger.definition is None or trigger.definition.format == CUE:
            continue
        from stepwell.project.schemas import (
            read_schema,
            schema_problems,
        )  # imported only if needed: it is slow to import

        pointer: Pointer = ("triggers", i, "definition", "def")
        schema = trigger.definition.def_
        if not isinstance(schema, str):
            problems += schema_problems(schema, file, source, pointer)
            continue
        try:
            found[i] = read_schema(resolve(file.parent, schema)).data
        except CodeError as error:
            problems.append(_placed(file, source, pointer, f"def: {error}"))
        except LoadError as error:
            problems += error.problems
    return found, problems


def _entry(step_id: str, step: Step, code: StepCode) -> dict[str, tuple[str, ...]]:
    """The command of a step by convention; empty if the step sets one. Raises CodeError if nothing to run is found."""
    runtime = step.runtime
    if isinstance(runtime, Lambda):
        if runtime.handler is not None:
            handler_file(code.folder, runtime.handler)
        elif runtime.command is None and runtime.arn is None:
            return {step_id: entry(code.folder, code.file)}
    elif runtime.type == "docker" and runtime.image is None:
        dockerfile(code.folder)
    return {}


def _placed(file: Path, source: Source, pointer: Pointer, message: str) -> PlacedProblem:
    return PlacedProblem(file, *source.place(pointer), pointer, message)
