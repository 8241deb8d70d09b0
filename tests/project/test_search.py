"""The search for functions in real folders: with builds, repositories, links, and unreadable files."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stepwell.project import code as step_code
from stepwell.project.code import CodeError, read_code
from stepwell.project.load import LoadError, find_definitions, load, load_all
from stepwell.project.schemas import find_types
from stepwell.project.search import Tree
from stepwell.project.webhooks import find_webhooks


def function(folder: Path, id: str = "f") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "main.sh").write_text("echo")
    (folder / "stepwell.json").write_text(json.dumps({"id": id, "triggers": [{"event": "e"}]}))
    return folder


def put(file: Path, content: str = "") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


def found(*paths: Path) -> list[str]:
    """The folders of the functions that are found, relative to the first path."""
    return [os.path.relpath(file.parent, paths[0]) for file in find_definitions(paths)]


def passed_over(path: Path) -> dict[str, str]:
    """The reason why each skipped definition is not used."""
    return {
        os.path.relpath(placed_problem.file, path): placed_problem.message.removeprefix("is skipped: ")
        for placed_problem in Tree([path]).passed_over
    }


# --- builds and tools ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "folder",
    [
        ".venv/lib/python3.13/site-packages/x",
        "node_modules/x",
        "lib/node_modules/x",
        "vendored/site-packages/x",
        "build/lib/x",
        "dist/x",
        "cdk.out/asset.1/x",
        "x.egg-info",
        "x-1.0.dist-info",
        "__pycache__/x",
        ".aws-sam/x",
        "x~",
        ".idea/x",
    ],
)
def test_folders_of_tools_and_builds_are_not_searched(tmp_path: Path, folder: str) -> None:
    function(tmp_path / "real")
    function(tmp_path / folder)
    assert found(tmp_path) == ["real"]
    assert found(tmp_path / folder) == ["."]  # a folder is searched if it is named explicitly


@pytest.mark.parametrize("name", ["venv", "env", "my-environment"])
def test_a_virtual_environment_is_recognised_by_its_file(tmp_path: Path, name: str) -> None:
    function(tmp_path / name / "share" / "x")
    assert found(tmp_path) == [f"{name}/share/x"]
    put(tmp_path / name / "pyvenv.cfg")
    assert found(tmp_path) == []


def test_a_skipped_function_in_a_build_folder_is_reported(tmp_path: Path) -> None:
    function(tmp_path / "build")
    function(tmp_path / "dist" / "deep")
    assert passed_over(tmp_path) == {
        "build/stepwell.json": "folders named build contain build output; name the folder explicitly to use it"
    }


def test_types_and_webhooks_in_such_folders_are_not_read(tmp_path: Path) -> None:
    put(tmp_path / ".gitignore", "scratch\n")
    for folder in ("build", "scratch", "."):
        put(tmp_path / folder / "schemas/order/placed.1.schema.json", "{}")
        put(tmp_path / folder / "schemas/order/._placed.1.schema.json", "\0")
        put(tmp_path / folder / "webhooks/w.json", '{"secret": "S", "verify": {"type": "none"}, "event": "w"}')
    assert [event_type.file for event_type in find_types([tmp_path]).types] == [
        tmp_path / "schemas/order/placed.1.schema.json"
    ]
    webhooks = find_webhooks([tmp_path])
    assert {item.file.parent for item in (*webhooks.rules, *webhooks.problems)} == {tmp_path / "webhooks"}


def test_types_that_git_ignores_are_read(tmp_path: Path) -> None:
    put(tmp_path / ".gitignore", "schemas/\nwebhooks/\n")
    put(tmp_path / "schemas/order/placed.1.schema.json", "{}")
    put(tmp_path / "functions/webhooks/w.json", "{}")
    assert len(find_types([tmp_path]).types) == 1
    assert len(find_webhooks([tmp_path]).problems) == 1
    put(tmp_path / ".stepwellignore", "schemas\nwebhooks\n")
    assert (find_types([tmp_path]).types, find_webhooks([tmp_path]).problems) == ([], [])


def test_types_that_stepwellignore_lists_are_read(tmp_path: Path) -> None:
    """`.stepwellignore` in a function excludes code. Types are not code, so they are found."""
    put(function(tmp_path / "f") / ".stepwellignore", "schemas/\nsteps/g\n")
    put(tmp_path / "f/schemas/order/placed.1.schema.json", "{}")
    put(tmp_path / "f/steps/.stepwellignore", "*\n")
    function(tmp_path / "f/steps/g", "g")
    assert len(find_types([tmp_path]).types) == 1
    assert sorted(found(tmp_path)) == ["f", "f/steps/g"]


# --- what git ignores ------------------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository, made without git."""
    put(tmp_path / "repository/.git/HEAD", "ref: refs/heads/main\n")
    return tmp_path / "repository"


def test_functions_that_git_ignores_are_skipped_and_reported(repository: Path) -> None:
    put(repository / ".gitignore", "scratch/\n/top\n*.generated\n!kept.generated\n")
    for folder in ("a", "scratch/deep", "x/scratch", "top", "x/top", "y.generated", "kept.generated"):
        function(repository / folder)
    assert found(repository) == ["a", "kept.generated", "x/top"]
    why = "git ignores it; name the folder explicitly to use it"
    assert passed_over(repository) == {
        "top/stepwell.json": why,
        "x/scratch/stepwell.json": why,
        "y.generated/stepwell.json": why,
    }


def test_the_deepest_file_decides(repository: Path) -> None:
    put(repository / ".gitignore", "one\ntwo\n")
    put(repository / "sub/.gitignore", "!one\nthree\n")
    for folder in ("one", "sub/one", "sub/two", "sub/three", "three"):
        function(repository / folder)
    assert found(repository) == ["sub/one", "three"]


def test_ignore_files_above_count_up_to_the_top_of_the_repository(repository: Path) -> None:
    put(repository.parent / ".gitignore", "a\nb\n")
    put(repository / ".gitignore", "/functions/a\n")
    put(repository / ".git/info/exclude", "c\n")
    for name in "abc":
        function(repository / "functions" / name)
    assert found(repository / "functions") == ["b"]


def test_a_second_working_tree_uses_the_excludes_of_the_first(repository: Path, tmp_path: Path) -> None:
    put(repository / ".git/info/exclude", "c\n")
    put(repository / ".git/worktrees/second/commondir", "../..\n")
    put(tmp_path / "second/.git", f"gitdir: {repository}/.git/worktrees/second\n")
    function(tmp_path / "second/c")
    function(tmp_path / "second/d")
    assert found(tmp_path / "second") == ["d"]


@pytest.mark.parametrize("named", ["out", "out/deep", "out/deep/f", "out/deep/f/stepwell.json"])
def test_an_ignored_folder_is_searched_if_it_is_named(repository: Path, named: str) -> None:
    put(repository / ".gitignore", "out/\nf/\n")
    function(repository / "out/deep/f")
    assert [file.parent.name for file in find_definitions([repository / named])] == ["f"]


def test_an_ignore_file_inside_a_named_folder_counts(repository: Path) -> None:
    put(repository / ".gitignore", "out/\n")
    put(repository / "out/.gitignore", "g\n")
    for name in "fg":
        function(repository / "out" / name)
    assert found(repository / "out") == ["f"]


def test_an_ignored_definition_is_used_only_if_it_is_named(repository: Path) -> None:
    put(repository / ".gitignore", "stepwell.json\n")
    function(repository / "f")
    assert found(repository) == []
    assert list(passed_over(repository)) == ["f/stepwell.json"]
    assert found(repository / "f") == ["."]
    assert load(repository / "f").definition.id == "f"


def test_without_a_repository_ignore_files_count_too(tmp_path: Path) -> None:
    put(tmp_path / ".gitignore", "a\n")
    put(tmp_path / "x/.stepwellignore", "b\n")
    for folder in ("a", "x/b", "x/c"):
        function(tmp_path / folder)
    assert found(tmp_path) == ["x/c"]
    assert passed_over(tmp_path)["x/b/stepwell.json"].startswith(".stepwellignore ignores it")


def test_an_invalid_pattern_is_skipped_as_in_git(repository: Path) -> None:
    put(repository / ".gitignore", "!\nscratch\n/\n").write_bytes(b"!\nscratch\n/\ncaf\xe9\n")
    function(repository / "scratch")
    function(repository / "f")
    assert found(repository) == ["f"]


def test_the_code_of_a_step_can_be_ignored_by_git(repository: Path) -> None:
    put(repository / ".gitignore", "build/\n*.sh\n")
    put(repository / "f/build/main.sh", "echo")
    steps = {"a": {"path": "file://build"}}
    put(repository / "f/stepwell.json", json.dumps({"id": "f", "triggers": [{"event": "e"}], "steps": steps}))
    (loaded,), errors = load_all([repository])
    assert ([file.path for file in loaded.steps["a"].files], errors) == (["main.sh"], [])


# --- odd trees -------------------------------------------------------------------------------------------------------


def test_a_linked_function_is_found_once(tmp_path: Path) -> None:
    function(tmp_path / "elsewhere", "elsewhere")
    function(tmp_path / "functions/real", "real")
    (tmp_path / "functions/a-link").symlink_to("../elsewhere")
    (tmp_path / "functions/same").symlink_to("real")
    assert found(tmp_path / "functions") == ["a-link", "real"]
    assert Tree([tmp_path / "functions"]).linked[0] in (tmp_path / "elsewhere", tmp_path / "functions/real")


def test_loops_of_links_are_not_followed_forever(tmp_path: Path) -> None:
    function(tmp_path / "f")
    (tmp_path / "f/again").symlink_to("..")
    (tmp_path / "f/self").symlink_to("../f")
    (tmp_path / "f/circle").symlink_to("circle")
    assert found(tmp_path) == ["f"]


def test_a_definition_that_is_a_broken_link_is_reported(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f/stepwell.json").symlink_to("gone.json")
    with pytest.raises(LoadError, match=r"f/stepwell\.json:1:1: is a link that does not lead to a file"):
        find_definitions([tmp_path])
    with pytest.raises(LoadError, match="a link that does not lead to a file"):
        load(tmp_path / "f")


def test_a_definition_in_capital_letters_is_reported(tmp_path: Path) -> None:
    put(tmp_path / "f/Stepwell.JSON", "{}")
    assert passed_over(tmp_path) == {
        "f/Stepwell.JSON": "names of definitions are lower case; rename it to stepwell.json"
    }
    with pytest.raises(LoadError, match=r"'Stepwell\.JSON'; rename it to stepwell\.json"):
        load(tmp_path / "f")


def test_a_step_whose_name_differs_only_in_case_is_suggested(tmp_path: Path) -> None:
    put(tmp_path / "Send/main.sh")
    steps = {"a": {"path": "file://send"}}
    put(tmp_path / "stepwell.json", json.dumps({"id": "f", "triggers": [{"event": "e"}], "steps": steps}))
    with pytest.raises(LoadError, match="there is 'Send', which differs in upper and lower case"):
        load(tmp_path)


def test_names_that_differ_in_case_are_two_functions(tmp_path: Path) -> None:
    function(tmp_path / "f", "one")
    function(tmp_path / "F", "two")
    assert found(tmp_path) == ["F", "f"]


def test_names_that_are_not_utf_8_are_found_and_printed(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    function(odd)
    assert find_definitions([tmp_path]) == [odd / "stepwell.json"]
    (odd / "stepwell.json").write_text("{")
    _, (error,) = load_all([tmp_path])
    str(error).encode()
    assert "caf\\udce9/stepwell.json:1:2" in str(error)


def test_a_folder_that_is_too_large_to_search_is_reported_with_the_cure(tmp_path: Path) -> None:
    function(tmp_path / "a")
    for i in range(50):
        put(tmp_path / f"data/{i % 5}/{i}")
    tree = Tree([tmp_path], most=40)
    (problem,) = tree.problems
    assert problem.file == tmp_path
    assert "is too large to search: more than 40 files and folders, the last in" in problem.message
    assert "name the folders of your functions" in problem.message
    assert Tree([tmp_path], most=100).problems == []


def test_code_of_too_many_files_is_refused_with_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_code, "MOST_FILES", 10)
    for i in range(11):
        put(tmp_path / f"data/{i}")
    with pytest.raises(CodeError, match=r"has more than 10 files; list in \.stepwellignore the files"):
        read_code(tmp_path, tmp_path)
    put(tmp_path / ".stepwellignore", "data/1*")
    assert len(read_code(tmp_path, tmp_path).files) == 10


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that other users can read too."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextmanager
def as_a_user() -> Iterator[None]:
    """Changes the user from root to nobody, because root can read everything."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.mark.parametrize(
    ("locked", "named", "expected"),
    [
        ("closed", ".", "closed:1:1: cannot be read (Permission denied), so functions in it are not found"),
        ("closed", "closed", "closed:1:1: cannot be read (Permission denied)"),
        ("closed", "closed/f", "closed/f:1:1: cannot be read: Permission denied"),
        ("f/s", "f", "step `s`: cannot read "),
        ("f/s/main.sh", "f", "/f/s/main.sh: Permission denied"),
        ("f/stepwell.json", ".", "f/stepwell.json:1:1: cannot be read: Permission denied"),
    ],
)
def test_folders_and_files_that_cannot_be_read_are_reported(
    shared: Path, locked: str, named: str, expected: str
) -> None:
    put(shared / "f/s/main.sh", "echo")
    steps = {"s": {"path": "file://s"}}
    put(shared / "f/stepwell.json", json.dumps({"id": "f", "triggers": [{"event": "e"}], "steps": steps}))
    function(shared / "closed/f", "g")
    (shared / locked).chmod(0)
    with as_a_user():
        functions, errors = load_all([shared / named])
    (shared / locked).chmod(0o755)
    assert expected in "\n".join(map(str, errors))
    others = {("closed", "."): "f", ("f/stepwell.json", "."): "g"}
    assert [function.definition.id for function in functions] == list(others.get((locked, named), ""))


def test_a_function_that_cannot_be_read_is_reported(shared: Path) -> None:
    function(shared / "f").chmod(0)
    with as_a_user(), pytest.raises(LoadError, match="f:1:1: cannot be read: Permission denied"):
        load(shared / "f")
