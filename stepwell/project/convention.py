"""Finds the program of a step that sets no command: by the names of the files, or by the Dockerfile.

Programs are written as a person would type them in the step's folder. Whether they are installed is not checked.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from stepwell.project.code import CodeError
from stepwell.project.leftovers import is_leftover

_INTERPRETERS = {".py": "python3", ".js": "node", ".mjs": "node", ".cjs": "node", ".sh": "sh"}
_NAMES = ("main.py", "index.js", "main.js", "main.sh")
_DOCKERFILES = ("Dockerfile", "Containerfile")
_HANDLER_SUFFIXES = (".py", "/__init__.py", ".js", ".mjs", ".cjs")


def entry(folder: Path, file: str | None = None) -> tuple[str, ...]:
    """The command line of a step without command or handler. It is to be run in `folder`.

    `file` is the name of the step's only file, if the step's path is a file. Raises CodeError, which lists the names
    that were tried.
    """
    if file is not None:
        return _only(folder, file)
    for name in _NAMES:
        if (folder / name).is_file():
            return _program(folder, name)
    if (folder / "bootstrap").is_file():
        if not _is_executable(folder / "bootstrap"):
            raise CodeError(f"bootstrap in {folder} is not executable; run chmod +x on it")
        return ("./bootstrap",)
    for path in sorted(folder.glob("main")) + sorted(folder.glob("main.*")):
        if _is_executable(path) and not is_leftover(path.name):
            return (f"./{path.name}",)
    looked_for = f"{', '.join(_NAMES)}, bootstrap or an executable main"
    cure = "add one, or give the step a command"
    if any((folder / name).is_file() for name in _DOCKERFILES):
        cure = "the folder has a Dockerfile, so if the step is a container, give it the runtime docker"
    raise CodeError(f"found nothing to run in {folder}: looked for {looked_for}; {cure}")


def handler_file(folder: Path, handler: str) -> Path:
    """The file in `folder` that contains a handler such as `app.handler` or `src/app.handler`. Raises CodeError."""
    module = handler.rpartition(".")[0]
    for stem in dict.fromkeys((module, module.replace(".", "/"))):
        for suffix in _HANDLER_SUFFIXES:
            if (folder / f"{stem}{suffix}").is_file():
                return folder / f"{stem}{suffix}"
    raise CodeError(f"found no module for the handler {handler} in {folder}: looked for {module}.py, .js, .mjs, .cjs")


def _only(folder: Path, name: str) -> tuple[str, ...]:
    if Path(name).suffix in _INTERPRETERS or _is_executable(folder / name):
        return _program(folder, name)
    suffixes = ", ".join(_INTERPRETERS)
    raise CodeError(
        f"cannot tell how to run {folder / name}: it is not executable, and not a {suffixes} file; give a command"
    )


def _program(folder: Path, name: str) -> tuple[str, ...]:
    """The command line for one file. An executable shell script with a shebang line runs directly, not through `sh`."""
    interpreter = _INTERPRETERS.get(Path(name).suffix)
    path = folder / name
    if interpreter is None or (interpreter == "sh" and _is_executable(path) and _has_shebang(path)):
        return (f"./{name}",)
    return (interpreter, name)


def _is_executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _has_shebang(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"#!"


# --- Dockerfiles -----------------------------------------------------------------------------------------------------

_HEREDOC = re.compile(r"<<-?\s*(['\"]?)([A-Za-z_][A-Za-z0-9_]*)\1")
_ESCAPE = re.compile(r"#\s*escape\s*=\s*(\S)", re.IGNORECASE)


@dataclass(slots=True)
class _Stage:
    """What the instructions of one build stage say about starting the container."""

    entrypoint: tuple[str, ...] = ()
    ignores_command: bool = False  # an entrypoint in shell form ignores CMD
    command: tuple[str, ...] = ()
    inherits_command: bool = False
    shell: tuple[str, ...] = ("/bin/sh", "-c")

    def follow(self, instruction: str, text: str) -> None:
        words = _exec_form(text)
        match instruction:
            case "SHELL" if words:
                self.shell = words
            case "CMD":
                self.command, self.inherits_command = self._argv(words, text), False
            case "ENTRYPOINT":
                self.entrypoint, self.ignores_command = self._argv(words, text), words is None
                if self.inherits_command:  # Docker resets an inherited CMD when a stage sets ENTRYPOINT
                    self.command = ()

    def _argv(self, words: tuple[str, ...] | None, text: str) -> tuple[str, ...]:
        return (*self.shell, text) if words is None else words


def dockerfile(folder: Path) -> Path:
    """The Dockerfile of a step's folder. Raises CodeError if there is none."""
    for name in _DOCKERFILES:
        if (folder / name).is_file():
            return folder / name
    raise CodeError(f"found no Dockerfile in {folder}; add one, or give the step's runtime an image")


def dockerfile_entry(folder: Path) -> tuple[str, ...]:
    """The command line that the image of this folder's Dockerfile runs, by ENTRYPOINT and CMD of the last stage.

    The settings of base images are unknown here. Raises CodeError if the Dockerfile has no ENTRYPOINT and no CMD.
    """
    path = dockerfile(folder)
    stage, stages = _Stage(), dict[str, _Stage]()
    for instruction, text in _instructions(path.read_text("utf-8", errors="replace")):
        if instruction != "FROM":
            stage.follow(instruction, text)
            continue
        words = [word for word in text.split() if not word.startswith("--")] or [""]
        base = stages.get(words[0].lower(), _Stage())
        stage = _Stage(base.entrypoint, base.ignores_command, base.command, bool(base.command), base.shell)
        stages[str(len(stages))] = stage
        if len(words) == 3:
            stages[words[2].lower()] = stage
    argv = stage.entrypoint + (() if stage.ignores_command else stage.command)
    if not argv:
        raise CodeError(f"{path} has no ENTRYPOINT or CMD in its last stage; add one to run it without a container")
    return argv


def _instructions(text: str) -> list[tuple[str, str]]:
    """The instructions with their texts: without comments, with continued lines joined, without here-documents."""
    found: list[tuple[str, str]] = []
    directive = _ESCAPE.match(text)
    escape = directive[1] if directive else "\\"
    open_documents: list[str] = []
    logical = ""
    for line in text.splitlines():
        if open_documents:
            if line.strip() == open_documents[0]:
                open_documents.pop(0)
            continue
        if line.lstrip().startswith("#") or not line.strip():
            continue
        stripped = line.rstrip()
        if stripped.endswith(escape):
            logical += stripped[:-1]
            continue
        instruction, _, rest = (logical + stripped).strip().partition(" ")
        logical = ""
        found.append((instruction.upper(), rest.strip()))
        if instruction.upper() in ("RUN", "COPY", "ADD"):
            open_documents = [match[2] for match in _HEREDOC.finditer(rest)]
    return found


def _exec_form(text: str) -> tuple[str, ...] | None:
    try:
        words = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return tuple(words) if isinstance(words, list) and all(isinstance(word, str) for word in words) else None
