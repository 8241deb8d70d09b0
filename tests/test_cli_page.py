"""The examples of reference/cli.md work.

Each one runs as it is printed, except that ids, and folders outside of the project, are those of the test. Examples
with `--env` run on an emulated account, in tests/push/test_cli_page.py.
"""

from __future__ import annotations

import shlex
import threading
from collections.abc import Iterator

import pytest

from tests import commands
from tests.documented import CLI_PAGE, Prepared, Scene, cli_examples, documented, needs_aws, prepare, write_project
from tests.pages import blocks

RUN, EVENT_ID, KEY = "t274kall7kl67sasotbuysxvpu", "01a22be8ce9d905e7491eb963752b6bb", "1f3a9c02"
OTHER_SERVER = "https://stepwell.example.com"
TOOL = """#!/bin/sh
while [ $# -gt 0 ]; do case $1 in --input) in=$2; shift;; --output) out=$2; shift;; esac; shift; done
cp "$in" "$out"
"""
SERVERS = ("stepwell dev", "stepwell serve")
EXAMPLES = [example for example in cli_examples() if not needs_aws(example)]


def waiting_run(scene: Scene) -> dict[str, str]:
    return {RUN: scene.waiting_run()["id"]}


def ended_run(scene: Scene) -> dict[str, str]:
    return {RUN: scene.ended_run()}


def active_key(scene: Scene) -> dict[str, str]:
    stepwell(scene, "keys create")
    return {KEY: stepwell(scene, "keys list --json").partition('"id": "')[2].partition('"')[0]}


def database(scene: Scene) -> None:
    """Writes the database of which a backup is made."""
    stepwell(scene, "keys create --db /var/lib/stepwell/stepwell.db")


def backup(scene: Scene) -> None:
    """Writes a backup, of which no database is there."""
    stepwell(scene, f"backup /backups/stepwell-monday.tar --force --db {shlex.quote(str(scene.db))}")
    (scene.folder / "var/lib/stepwell/stepwell.db").unlink(missing_ok=True)


def stored_event(scene: Scene) -> None:
    scene.ended_run(id=EVENT_ID)


def types_in_files(scene: Scene) -> None:
    write_project(scene.folder)


def no_schema(scene: Scene) -> None:
    (scene.folder / "schemas/order/placed.1.schema.json").unlink(missing_ok=True)


# What must exist before an example, by the beginning of the command: the longest beginning counts.
BEFORE: Prepared = {
    "stepwell approve ": waiting_run,
    "stepwell backup": database,
    "stepwell cancel": waiting_run,
    "stepwell sources": Scene.source,
    "stepwell sources retry": Scene.empty_quarantine,
    "stepwell decline": waiting_run,
    "stepwell events show": stored_event,
    "stepwell keys": active_key,
    "stepwell promote": Scene.canary,
    "stepwell rerun": ended_run,
    "stepwell restore": backup,
    "stepwell resume": Scene.pause,
    "stepwell run ": stored_event,
    "stepwell runs show": ended_run,
    "stepwell types": Scene.type,
    "stepwell types diff": types_in_files,
    "stepwell types infer": no_schema,
    "stepwell user": Scene.user,
    "stepwell webhooks": Scene.webhook,
    "stepwell workers": Scene.worker,
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with documented(tmp_path_factory.mktemp("cli")) as scene:
        tool = scene.folder / "bin" / "datamodel-codegen"
        for folder in (tool.parent, scene.folder / "backups"):
            folder.mkdir()
        tool.write_text(TOOL)
        tool.chmod(0o755)
        yield scene


def stepwell(scene: Scene, arguments: str) -> str:
    """Runs a command in the project, and returns what it prints. It must succeed."""
    done = commands.run(_words(scene, arguments), _variables(scene), cwd=str(scene.folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _words(scene: Scene, arguments: str) -> list[str]:
    """The arguments of a command. Folders of the system are folders of the project."""
    return [
        str(scene.folder / word[1:]) if word.startswith(("/var/", "/backups/")) else word
        for word in shlex.split(arguments.replace(OTHER_SERVER, scene.url))
    ]


def _variables(scene: Scene) -> dict[str, str]:
    return {"STEPWELL_URL": scene.url, "STEPWELL_KEY": scene.key, "PATH": f"{scene.folder / 'bin'}:/usr/bin:/bin"}


def test_every_command_has_an_example() -> None:
    without = [
        section.partition("`")[0]
        for section in CLI_PAGE.read_text("utf-8").split("\n## `")[1:]
        if not list(blocks(section))
    ]
    assert without == []


# What an example deletes is there again for the next one; an erased user is not, so this example is the last.
@pytest.mark.parametrize("example", sorted(EXAMPLES, key=lambda example: "erase" in example))
def test_an_example_works(example: str, scene: Scene) -> None:
    for old, new in prepare(scene, example, BEFORE).items():
        example = example.replace(old, new)
    arguments = example.removeprefix("stepwell ")
    assert example != arguments
    if example.startswith(SERVERS):
        starts_and_stops(scene, arguments)
    else:
        assert stepwell(scene, arguments)


def starts_and_stops(scene: Scene, arguments: str) -> None:
    """The server of an example prints its address, and ends without an error when it is stopped."""
    words = [*_words(scene, arguments), "--port", "0"]  # the last `--port` counts
    command = commands.Command(words, _variables(scene), cwd=str(scene.folder))
    deadline = threading.Timer(30, command.kill)
    deadline.start()
    assert command.stdout is not None
    assert command.stderr is not None
    try:
        printed = next((line for line in command.stdout if "http://" in line), None)
        assert printed is not None, command.stderr.read()
        command.terminate()
        assert command.wait(20) == 0, command.stderr.read()
    finally:
        deadline.cancel()
        command.kill()
        command.stdout.close()
        command.stderr.close()
