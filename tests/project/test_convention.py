"""Finding the program of a step that sets no command."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepwell.project.code import CodeError
from stepwell.project.convention import dockerfile_entry, entry, handler_file


def put(folder: Path, name: str, content: str = "", executable: bool = False) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content)
    (folder / name).chmod(0o755 if executable else 0o644)


@pytest.mark.parametrize(
    ("files", "argv"),
    [
        (["main.py"], ("python3", "main.py")),
        (["index.js"], ("node", "index.js")),
        (["main.js"], ("node", "main.js")),
        (["main.sh"], ("sh", "main.sh")),
        (["bootstrap*"], ("./bootstrap",)),
        (["main*"], ("./main",)),
        (["main.rb*"], ("./main.rb",)),
        (["main.py", "index.js", "main*"], ("python3", "main.py")),
        (["main.txt", "main*"], ("./main",)),
        (["main.pl~*", "main.rb*"], ("./main.rb",)),
    ],
)
def test_the_program_of_a_folder_is_found_by_file_names(
    tmp_path: Path, files: list[str], argv: tuple[str, ...]
) -> None:
    for name in files:
        put(tmp_path, name.rstrip("*"), executable=name.endswith("*"))
    assert entry(tmp_path) == argv


def test_an_executable_script_with_a_shebang_runs_itself(tmp_path: Path) -> None:
    put(tmp_path, "main.sh", "#!/bin/bash\n", executable=True)
    assert entry(tmp_path) == ("./main.sh",)
    put(tmp_path, "main.sh", "echo\n", executable=True)
    assert entry(tmp_path) == ("sh", "main.sh")


@pytest.mark.parametrize("files", [[], ["app.py"], ["main"], ["main.txt"]])
def test_a_folder_without_a_program_is_refused_with_the_names_that_were_tried(tmp_path: Path, files: list[str]) -> None:
    for name in files:
        put(tmp_path, name)
    with pytest.raises(
        CodeError, match=r"looked for main\.py, index\.js, main\.js, main\.sh, bootstrap or an executable"
    ):
        entry(tmp_path)


def test_a_bootstrap_that_is_not_executable_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "bootstrap")
    with pytest.raises(CodeError, match=r"chmod \+x"):
        entry(tmp_path)


@pytest.mark.parametrize(
    ("name", "argv"),
    [
        ("send.py", ("python3", "send.py")),
        ("send.js", ("node", "send.js")),
        ("send.mjs", ("node", "send.mjs")),
        ("send.sh", ("sh", "send.sh")),
        ("send*", ("./send",)),
        ("send.rb*", ("./send.rb",)),
    ],
)
def test_a_single_file_is_run_by_its_extension(tmp_path: Path, name: str, argv: tuple[str, ...]) -> None:
    put(tmp_path, name.rstrip("*"), executable=name.endswith("*"))
    assert entry(tmp_path, name.rstrip("*")) == argv


def test_a_single_file_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "notes.txt")
    with pytest.raises(CodeError, match=r"cannot tell how to run .*notes\.txt"):
        entry(tmp_path, "notes.txt")


@pytest.mark.parametrize(
    ("file", "handler"),
    [
        ("app.py", "app.handler"),
        ("src/app.mjs", "src/app.handler"),
        ("pkg/mod.py", "pkg.mod.fn"),
        ("pkg/__init__.py", "pkg.fn"),
        ("my.app.js", "my.app.fn"),
    ],
)
def test_a_handler_without_its_module_is_refused(tmp_path: Path, file: str, handler: str) -> None:
    with pytest.raises(CodeError, match="found no module for the handler"):
        handler_file(tmp_path, handler)
    put(tmp_path, file)
    assert handler_file(tmp_path, handler) == tmp_path / file


SH = ("/bin/sh", "-c")


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        ('FROM a\nCMD ["python", "main.py"]', ("python", "main.py")),
        ('FROM a\nENTRYPOINT ["python"]\nCMD ["main.py"]', ("python", "main.py")),
        ('FROM a\ncmd ["main.py"]\nentrypoint ["python"]', ("python", "main.py")),
        ("FROM a\nCMD python main.py", (*SH, "python main.py")),
        ("FROM a\nENTRYPOINT exec python main.py\nCMD ignored", (*SH, "exec python main.py")),
        ('FROM a\nENTRYPOINT ["x"]\nCMD a b', ("x", *SH, "a b")),
        ('FROM a\nSHELL ["/bin/bash", "-c"]\nCMD x', ("/bin/bash", "-c", "x")),
        ('FROM a\nCMD ["one"]\nCMD ["two"]', ("two",)),
        ('FROM a AS build\nCMD ["no"]\nFROM b\nCMD ["yes"]', ("yes",)),
        ('FROM a AS base\nCMD ["yes"]\nFROM base', ("yes",)),
        ('FROM a\nCMD ["yes"]\nFROM --platform=x 0', ("yes",)),
        ('FROM a AS base\nCMD ["no"]\nFROM base\nENTRYPOINT ["yes"]', ("yes",)),
        ('FROM a\n# CMD ["no"]\nCMD ["a", \\\n# comment\n\n  "b"]\n', ("a", "b")),
        ("FROM a\nRUN <<EOF\nCMD no\nEOF\nCMD yes", (*SH, "yes")),
        ("# escape=`\nFROM a\nCMD a `\n  b", (*SH, "a   b")),
        ("ARG X=1\nFROM a:${X}\nCMD ['single']", (*SH, "['single']")),
    ],
)
def test_the_program_of_an_image_is_read_from_the_dockerfile(tmp_path: Path, text: str, argv: tuple[str, ...]) -> None:
    put(tmp_path, "Dockerfile", text)
    assert dockerfile_entry(tmp_path) == argv


@pytest.mark.parametrize("text", ["", "FROM a", 'FROM a AS b\nCMD ["x"]\nFROM c', "FROM", "FROM a\nCMD []"])
def test_a_dockerfile_without_a_program_is_refused(tmp_path: Path, text: str) -> None:
    put(tmp_path, "Dockerfile", text)
    with pytest.raises(CodeError, match="has no ENTRYPOINT or CMD in its last stage"):
        dockerfile_entry(tmp_path)


def test_a_folder_without_a_dockerfile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CodeError, match="found no Dockerfile"):
        dockerfile_entry(tmp_path)
