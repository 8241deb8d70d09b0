"""The code of a step: which files belong to it, the hash, and read-only copies."""

from __future__ import annotations

import os
import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stepwell.project import code as step_code
from stepwell.project.code import CodeError, dotenv, read_code, resolve
from stepwell.project.code_copies import materialise, remove


def write(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def names(folder: Path) -> list[str]:
    return [file.path for file in read_code(folder, folder).files]


def hash_of(folder: Path) -> str:
    return read_code(folder, folder).hash


# --- paths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["file://./a", "file://a", "file://a/", "file://b/../a"])
def test_a_path_is_relative_to_the_definition(tmp_path: Path, path: str) -> None:
    write(tmp_path, {"a/main.py": "", "b/x": ""})
    assert resolve(tmp_path, path) == (tmp_path / "a").resolve()


def test_a_path_can_be_the_functions_folder_itself(tmp_path: Path) -> None:
    assert resolve(tmp_path, "file://.") == tmp_path.resolve()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("file://./nowhere", "'./nowhere' does not exist"),
        ("file://../outside", "leads out of the function's folder"),
        ("file://link", "leads out of the function's folder"),
        ("file://circle", "cannot be followed"),
        ("file://" + "x" * 5000, "cannot be followed"),
        ("file://main.py/x", "cannot be followed"),
    ],
)
def test_an_invalid_path_is_refused(tmp_path: Path, path: str, expected: str) -> None:
    folder = write(tmp_path, {"function/main.py": "", "outside/main.py": ""}) / "function"
    (folder / "link").symlink_to("../outside")
    (folder / "circle").symlink_to("circle")
    with pytest.raises(CodeError, match=expected):
        resolve(folder, path)


# --- which files belong to the code ----------------------------------------------------------------------------------


def test_files_that_are_not_code_are_left_out(tmp_path: Path) -> None:
    out = [".git/config", ".env", "__pycache__/a.pyc", ".stepwell/db", "node_modules/.cache/x", "lib/__pycache__/b.pyc"]
    kept = [".venv/lib/x.py", "cache/.cache/x", "main.py", "node_modules/left-pad/index.js"]
    write(tmp_path, dict.fromkeys(out + kept, ""))
    assert names(tmp_path) == kept


LEFT_BEHIND = [
    ".DS_Store", "._main.py", ".AppleDouble/x", "Icon\r", "Thumbs.db", "thumbs.db", "desktop.ini", "Desktop.ini",
    "main.py:Zone.Identifier", "~$plan.docx", ".main.py.swp", ".main.py.swo", ".main.py.swn", "main.py.swp",
    ".swp", "main.py~", "main.py.~1~", ".main.py.un~", "4913", ".#main.py", "#main.py#", ".main.py.kate-swp",
    "flycheck_main.py", "main.py___jb_tmp___", ".goutputstream-X1Y2Z3", ".~lock.data.csv#", ".nfs000000000003",
    ".Trash-1000/x", ".directory", ".idea/workspace.xml", ".vscode/settings.json", ".pytest_cache/README.md",
    ".hg/store", "lib/.DS_Store", "lib/a.py~",
]  # fmt: skip


def test_leftovers_of_editors_and_systems_are_not_code(tmp_path: Path) -> None:
    write(tmp_path, {"main.py": "1", "lib/a.py": "2"})
    before = hash_of(tmp_path)
    write(tmp_path, dict.fromkeys(LEFT_BEHIND, "unsaved"))
    (tmp_path / ".#lib").symlink_to("ada@host.1234:99")
    assert names(tmp_path) == ["lib/a.py", "main.py"]
    assert hash_of(tmp_path) == before


def test_files_that_only_resemble_leftovers_are_code(tmp_path: Path) -> None:
    kept = [".config", ".hidden", "#1.txt", "49130", "a.swf", "a.tmp", "a~b", "main.py", "thumbs.db.json"]
    write(tmp_path, dict.fromkeys(kept, ""))
    assert names(tmp_path) == sorted(kept)


def test_the_ignore_file_can_include_leftovers_again(tmp_path: Path) -> None:
    write(tmp_path, {".stepwellignore": "!desktop.ini\n", "desktop.ini": "", "Thumbs.db": ""})
    assert names(tmp_path) == [".stepwellignore", "desktop.ini"]


def test_a_single_file_is_code_whatever_its_name_is(tmp_path: Path) -> None:
    write(tmp_path, {"4913": ""})
    assert [file.path for file in read_code(tmp_path / "4913", tmp_path).files] == ["4913"]


def test_the_ignore_file_works_like_gitignore(tmp_path: Path) -> None:
    write(tmp_path, dict.fromkeys(["main.py", "a.log", "keep.log", "build/x", "src/build/y", "data/big.bin"], ""))
    write(tmp_path, {".stepwellignore": "# comment\n*.log\n!keep.log\nbuild/\n/data\n"})
    assert names(tmp_path) == [".stepwellignore", "keep.log", "main.py"]


def test_the_ignore_file_beside_the_definition_counts_for_every_step(tmp_path: Path) -> None:
    write(tmp_path, {".stepwellignore": "*.log\nsteps/a/secret\n", "steps/a/x.log": "", "steps/a/secret": ""})
    write(tmp_path, {"steps/a/.stepwellignore": "*.tmp\n", "steps/a/y.tmp": "", "steps/a/main.py": ""})
    found = read_code(resolve(tmp_path, "file://steps/a"), tmp_path)
    assert [file.path for file in found.files] == [".stepwellignore", "main.py"]


def test_a_single_file_is_the_whole_code(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "1", "b.py": "2"})
    found = read_code(tmp_path / "a.py", tmp_path)
    assert (found.folder, found.file) == (tmp_path, "a.py")
    assert [file.path for file in found.files] == ["a.py"]


def test_a_link_that_stays_inside_is_kept(tmp_path: Path) -> None:
    write(tmp_path, {"lib/real.py": ""})
    (tmp_path / "lib/link.py").symlink_to("../lib/real.py")
    (tmp_path / "folder").symlink_to("lib")
    assert [(file.path, file.kind) for file in read_code(tmp_path, tmp_path).files] == [
        ("folder", "l"),
        ("lib/link.py", "l"),
        ("lib/real.py", "f"),
    ]


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(CodeError, match="leads to itself"):
        read_code(tmp_path, tmp_path)


@pytest.mark.parametrize("target", ["../outside", "/etc/passwd", "lib/../../outside", "../step/main.py", "chain"])
def test_a_link_that_leads_out_is_refused(tmp_path: Path, target: str) -> None:
    folder = write(tmp_path, {"step/main.py": "", "step/lib/x": "", "outside": ""}) / "step"
    (folder / ".venv").mkdir()
    (folder / ".venv/out").symlink_to("/etc")
    (folder / "a-link").symlink_to(".venv/out" if target == "chain" else target)
    with pytest.raises(CodeError, match=r"a-link is a link that leads out of the step's folder"):
        read_code(folder, folder)


def test_an_absolute_link_is_refused_even_if_it_leads_inside(tmp_path: Path) -> None:
    write(tmp_path, {"main.py": ""})
    (tmp_path / "link").symlink_to(tmp_path / "main.py")
    with pytest.raises(CodeError, match="leads out"):
        read_code(tmp_path, tmp_path)


def test_links_of_a_virtual_environment_can_lead_anywhere(tmp_path: Path) -> None:
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to("/usr/bin/python3")
    assert names(tmp_path) == [".venv/bin/python"]


def test_a_virtual_environment_can_have_any_name(tmp_path: Path) -> None:
    write(tmp_path, {"env/pyvenv.cfg": "", "env/bin/activate": ""})
    (tmp_path / "env/bin/python").symlink_to("/usr/bin/python3")
    assert names(tmp_path) == ["env/bin/activate", "env/bin/python", "env/pyvenv.cfg"]
    (tmp_path / "python").symlink_to("/usr/bin/python3")
    with pytest.raises(CodeError, match="leads out"):
        read_code(tmp_path, tmp_path)


def test_pipes_and_sockets_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CodeError, match="pipe is not a file but a socket, pipe or device"):
        read_code(tmp_path, tmp_path)
    (tmp_path / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        with pytest.raises(CodeError, match="is not a file but a socket, pipe or device"):
            read_code(tmp_path, tmp_path)


def test_more_than_250_mb_of_code_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"main.py": ""})
    with (tmp_path / "big").open("wb") as file:
        file.truncate(step_code.LARGEST + 1)
    with pytest.raises(CodeError, match=r"larger than 250 MB; list in \.stepwellignore the files that are not needed"):
        read_code(tmp_path, tmp_path)
    write(tmp_path, {".stepwellignore": "big"})
    assert names(tmp_path) == [".stepwellignore", "main.py"]


# --- the hash --------------------------------------------------------------------------------------------------------


def test_equal_code_in_another_place_has_an_equal_hash(tmp_path: Path) -> None:
    files = {"main.py": "print()", "lib/a.py": "", "b": "x"}
    one, two = write(tmp_path / "one", files), write(tmp_path / "two", dict(reversed(files.items())))
    assert hash_of(one) == hash_of(two)
    assert len(hash_of(one)) == 64


def test_paths_exec_bits_and_bytes_change_the_hash(tmp_path: Path) -> None:
    hashes = [
        hash_of(write(tmp_path / "1", {"a": "bc"})),
        hash_of(write(tmp_path / "2", {"ab": "c"})),
        hash_of(write(tmp_path / "3", {"a": "bd"})),
        hash_of(write(tmp_path / "4", {"a": "bc", "b": ""})),
        hash_of(write(tmp_path / "5", {})),
    ]
    (tmp_path / "1/a").chmod(0o755)
    hashes.append(hash_of(tmp_path / "1"))
    (tmp_path / "6").mkdir()
    (tmp_path / "6/a").symlink_to("bc")
    hashes.append(hash_of(tmp_path / "6"))
    assert len(set(hashes)) == len(hashes)


def test_a_file_name_that_is_not_utf_8_is_accepted(tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9.txt")
    (tmp_path / odd).write_text("x")
    copy = materialise(read_code(tmp_path, tmp_path), tmp_path.parent / "copies")
    assert (copy / odd).read_text() == "x"


# --- copies ----------------------------------------------------------------------------------------------------------


def test_a_copy_is_equal_and_read_only(tmp_path: Path) -> None:
    source = write(tmp_path / "source", {"main.py": "1", "lib/run.sh": "2", ".env": "SECRET=1"})
    (source / "lib/run.sh").chmod(0o700)
    (source / "link").symlink_to("lib/run.sh")
    code = read_code(source, source)
    copy = materialise(code, tmp_path / "copies")
    assert copy == tmp_path / "copies" / code.hash
    assert hash_of(copy) == code.hash
    modes = {
        p.relative_to(copy).as_posix(): stat.S_IMODE(p.stat().st_mode)
        for p in [copy, *copy.rglob("*")]
        if p.name != "link"
    }
    assert modes == {".": 0o555, "lib": 0o555, "main.py": 0o444, "lib/run.sh": 0o555}
    assert (copy / "link").readlink() == Path("lib/run.sh")


def test_a_single_file_is_copied_into_a_folder(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "1", "b.py": "2"})
    copy = materialise(read_code(tmp_path / "a.py", tmp_path), tmp_path / "copies")
    assert [path.name for path in copy.iterdir()] == ["a.py"]


def test_a_copy_is_made_once(tmp_path: Path) -> None:
    code = read_code(write(tmp_path / "source", {"main.py": "1"}), tmp_path)
    first = materialise(code, tmp_path / "copies").stat()
    remove(tmp_path / "source")
    assert materialise(code, tmp_path / "copies").stat() == first


def test_several_copiers_at_once_make_one_copy(tmp_path: Path) -> None:
    code = read_code(write(tmp_path / "source", {f"{i}.py": str(i) for i in range(50)}), tmp_path)
    with ThreadPoolExecutor(8) as threads:
        copies = list(threads.map(lambda _: materialise(code, tmp_path / "copies"), range(16)))
    assert set(copies) == {tmp_path / "copies" / code.hash}
    assert hash_of(copies[0]) == code.hash
    assert sorted(path.name for path in (tmp_path / "copies").iterdir()) == sorted([".lock", code.hash])


def test_leftovers_of_an_interrupted_copy_are_removed(tmp_path: Path) -> None:
    left = write(tmp_path / "copies/.unfinished", {"lib/half.py": "1"})
    (left / "lib").chmod(0o555)
    code = read_code(write(tmp_path / "source", {"main.py": "1"}), tmp_path)
    assert [path.name for path in materialise(code, tmp_path / "copies").iterdir()] == ["main.py"]
    assert not left.exists()


@pytest.mark.parametrize("change", ["bytes", "mode", "gone", "link", "folder"])
def test_code_that_changed_since_it_was_hashed_is_not_copied(tmp_path: Path, change: str) -> None:
    source = write(tmp_path / "source", {"main.py": "1", "other.py": "1"})
    code = read_code(source, source)
    main = source / "main.py"
    if change == "mode":
        main.chmod(0o755)
    else:
        main.unlink()
    if change == "bytes":
        main.write_text("2")
    elif change == "link":
        main.symlink_to("other.py")
    elif change == "folder":
        main.mkdir()
    with pytest.raises(CodeError, match=r"main\.py changed while it was copied; load the function again"):
        materialise(code, tmp_path / "copies")
    assert [path.name for path in (tmp_path / "copies").iterdir()] == [".lock"]


def test_a_copy_can_be_removed(tmp_path: Path) -> None:
    code = read_code(write(tmp_path / "source", {"a/b/main.py": "1"}), tmp_path)
    copy = materialise(code, tmp_path / "copies")
    remove(copy)
    assert not copy.exists()
    remove(copy)


# --- .env ------------------------------------------------------------------------------------------------------------


def test_the_env_file_of_a_folder_is_read(tmp_path: Path) -> None:
    write(tmp_path, {".env": "# c\nA=1\nexport B='two # $A'\nC=\"a\\nb\" # c\nD=\nE\nF=x=y\nG=${A}\n"})
    assert dotenv(tmp_path) == {"A": "1", "B": "two # $A", "C": "a\nb", "D": "", "F": "x=y", "G": "${A}"}


def test_without_an_env_file_there_are_no_variables(tmp_path: Path) -> None:
    assert dotenv(tmp_path) == {}


@pytest.mark.parametrize("content", [b"A=\xff\xfe", b"A=b\0c"])
def test_an_env_file_that_is_not_text_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(CodeError, match=r"\.env"):
        dotenv(tmp_path)
