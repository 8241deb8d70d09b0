"""Archives of functions: what a push sends, and what a server accepts."""

from __future__ import annotations

import json
import os
import stat
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from stepwell.project.archive import BadArchive, unpack, write_archive
from stepwell.project.code import CodeError
from stepwell.project.load import LoadedFunction, load
from stepwell.project.pushed import for_push, not_pushed


def function(folder: Path, *, command: list[str] | None = None) -> LoadedFunction:
    (folder / "step").mkdir(parents=True, exist_ok=True)
    (folder / "step/main.sh").write_text("echo")
    step = {"path": "file://./step"} | ({"runtime": {"type": "lambda", "command": command}} if command else {})
    (folder / "stepwell.json").write_text(json.dumps({"id": "f", "triggers": [{"event": "e"}], "steps": {"a": step}}))
    return load(folder)


def sent(function: LoadedFunction, into: Path) -> LoadedFunction:
    """The function as the server sees it after a push."""
    file = BytesIO()
    write_archive(function, file)
    into.mkdir()
    unpack(file, into)
    return load(into)


def files(folder: Path) -> list[str]:
    return sorted(os.path.relpath(Path(top, name), folder) for top, _, names in os.walk(folder) for name in names)


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


def test_links_that_stay_inside_arrive_as_links(tmp_path: Path) -> None:
    put(tmp_path / "f/step", "lib/real.sh", "lib/deep/other.sh")
    (tmp_path / "f/step/lib/deep/up").symlink_to("../real.sh")
    (tmp_path / "f/step/folder").symlink_to("lib")
    (tmp_path / "f/step/gone").symlink_to("lib/nothing")
    pushed = function(tmp_path / "f")
    arrived = sent(pushed, tmp_path / "there")
    assert arrived.steps["a"].hash == pushed.steps["a"].hash
    assert (tmp_path / "there/step/lib/deep/up").readlink() == Path("../real.sh")
    assert (tmp_path / "there/step/folder/real.sh").read_text() == "x"


def test_files_that_work_only_on_this_machine_are_not_pushed(tmp_path: Path) -> None:
    step = tmp_path / "f/step"
    put(step, ".venv/pyvenv.cfg", ".venv/lib/x.py", "lib/env/pyvenv.cfg", "lib/env/y.py", "node_modules/tool/cli.js")
    for name, target in [
        (".venv/bin/python", "/usr/bin/python3"),
        ("lib/env/bin/python", "/usr/bin/python3"),
        ("node_modules/.bin/tool", "../tool/cli.js"),
        ("node_modules/tool/node_modules/.bin/other", "../../cli.js"),
    ]:
        (step / name).parent.mkdir(parents=True, exist_ok=True)
        (step / name).symlink_to(target)
    loaded = function(tmp_path / "f")
    arrived = sent(loaded, tmp_path / "there")
    assert files(tmp_path / "there/step") == ["main.sh", "node_modules/tool/cli.js"]
    assert arrived.steps["a"].hash == for_push(loaded).steps["a"].hash != loaded.steps["a"].hash
    assert [str(note.message).split(" works only")[0] for note in not_pushed(loaded)] == [
        "step `a`: the virtual environment .venv",
        "step `a`: the virtual environment lib/env",
    ]


def test_an_incomplete_virtual_environment_is_not_pushed(tmp_path: Path) -> None:
    (tmp_path / "f/step/.venv/bin").mkdir(parents=True)
    (tmp_path / "f/step/.venv/bin/python").symlink_to("/usr/bin/python3")
    sent(function(tmp_path / "f"), tmp_path / "there")
    assert files(tmp_path / "there/step") == ["main.sh"]


def test_programs_in_a_command_are_pushed(tmp_path: Path) -> None:
    put(tmp_path / "f/step", "node_modules/tool/cli.js")
    (tmp_path / "f/step/node_modules/.bin").mkdir()
    (tmp_path / "f/step/node_modules/.bin/tool").symlink_to("../tool/cli.js")
    sent(function(tmp_path / "f", command=["./node_modules/.bin/tool"]), tmp_path / "there")
    assert (tmp_path / "there/step/node_modules/.bin/tool").readlink() == Path("../tool/cli.js")


def test_other_code_is_pushed_unchanged(tmp_path: Path) -> None:
    put(tmp_path / "f/step", "pyvenv.cfg", "bin/x", "node_modules.bin/y")
    loaded = function(tmp_path / "f")
    assert for_push(loaded).steps["a"] == loaded.steps["a"]


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "f/step", os.fsdecode(b"caf\xe9.txt"))
    with pytest.raises(CodeError, match="not in UTF-8; rename it"):
        write_archive(function(tmp_path / "f"), BytesIO())


def archive(*members: tuple[str, str, int]) -> BytesIO:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as writer:
        for name, content, kind in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = (kind | 0o755) << 16
            writer.writestr(info, content)
    return file


L, F = stat.S_IFLNK, stat.S_IFREG


@pytest.mark.parametrize(
    "members",
    [
        [("l", "/etc/passwd", L)],
        [("l", "..", L)],
        [("l", "../x", L)],
        [("a/l", "../../x", L)],
        [("l", "a/../../x", L), ("a/f", "", F)],
        [("l", "x" * 5000, L)],
        [("l", "a\0b", L)],
        [("l", "", L)],
        [("l", "l", L)],
        [("l", "m", L), ("m", "l", L)],
        [("here", ".", L), ("l", "here/../x", L)],  # the text of each link stays inside
        [("a/here", "..", L), ("l", "a/here/../x", L)],
        [("d", ".", L), ("d/l", "../x", L)],  # a link behind a link
        [("d", "e", L), ("d/f", "x", F)],
        [("e/f", "", F), ("d", "e", L), ("d/g/l", "x", L)],
        [("l", "x", stat.S_IFIFO)],
        [("l", "x", stat.S_IFCHR)],
    ],
)
def test_an_archive_whose_links_lead_out_is_refused(tmp_path: Path, members: list[tuple[str, str, int]]) -> None:
    with pytest.raises(BadArchive):
        unpack(archive(*members), tmp_path / "into")
    assert not any(path.name == "x" for path in tmp_path.iterdir())
