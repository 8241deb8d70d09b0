"""Rules of webhooks on disk: where they are found, and invalid files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stepwell.project.rule_files import FoundRules
from stepwell.project.sources import find_sources
from stepwell.project.webhooks import find_webhooks
from tests.servers import write_function

RULE = '{"event": "hook", "verify": {"type": "github", "secret": "S"}}'


def write(file: Path, text: str = RULE) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def names(*paths: Path) -> list[str]:
    found = find_webhooks(paths)
    assert (found.problems, found.warnings) == ([], [])
    return [webhook.name for webhook in found.rules]


def test_rules_are_found_beside_functions_and_in_their_folders(tmp_path: Path) -> None:
    one = write_function(tmp_path / "functions" / "one")
    write(one / "webhooks" / "inside.json")
    write(tmp_path / "functions" / "webhooks" / "beside.yaml", "event: hook\nverify: {type: stripe, secret: S}\n")
    assert names(tmp_path) == names(tmp_path / "functions") == names(one) == ["beside", "inside"]
    assert names(one / "stepwell.json") == ["beside", "inside"]


def test_other_files_and_the_code_of_functions_are_not_rules(tmp_path: Path) -> None:
    function = write_function(tmp_path / "f")
    write(function / "steps" / "webhooks" / "package.json", "{}")
    write(function / "node_modules" / "x" / "webhooks" / "a.json", "{}")
    write(function / ".hidden" / "webhooks" / "a.json", "{}")
    write(function / "webhooks" / "README.md", "text")
    write(function / "webhooks" / ".github.json", "{")
    write(function / "webhooks" / "deeper" / "a.json", "{}")
    write(write_function(tmp_path / "webhooks") / "package.json", "{}")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("file", "text", "place", "message"),
    [
        ("a.json", '{\n "event": "e",\n "id": "body."\n}', (3, 2), "id: `.` is not allowed here"),
        ("a.yaml", "event: e\nvrify: 1\n", (2, 1), "did you mean `verify`?"),
        ("a.json", "{", (1, 2), ""),
        ("a.json", "[]", (1, 1), "a rule must be an object"),
        ("a.json", '{"event": "e", "name": "b"}', (1, 16), "remove it"),
        ("A.json", RULE, (1, 1), "an id has"),
        ("a.b.json", RULE, (1, 1), "an id has"),
    ],
)
def test_an_invalid_rule_is_reported_with_its_place(
    tmp_path: Path, file: str, text: str, place: tuple[int, int], message: str
) -> None:
    written = write(tmp_path / "webhooks" / file, text)
    found = find_webhooks([tmp_path])
    (problem, *_) = found.problems
    assert (problem.file, (problem.line, problem.column)) == (written, place)
    assert message in problem.message
    assert found.rules == []


def test_a_duplicate_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a" / "webhooks" / "github.json")
    write(tmp_path / "b" / "webhooks" / "github.yaml", RULE)
    (problem,) = find_webhooks([tmp_path]).problems
    assert "is also defined in" in problem.message


def test_a_rule_that_checks_no_signature_is_a_warning(tmp_path: Path) -> None:
    write(tmp_path / "webhooks" / "open.json", '{"event": "hook"}')
    (warning,) = find_webhooks([tmp_path]).warnings
    assert "anyone can send requests" in str(warning)


@pytest.mark.parametrize("find", [find_webhooks, find_sources])
def test_a_file_that_is_found_by_two_paths_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, find: Callable[[list[Path]], FoundRules]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fn/a").mkdir(parents=True)
    (tmp_path / "fn/a/stepwell.yaml").write_text("id: a\ntriggers: [{event: go}]\nsteps: {s: {path: 'file://.'}}\n")
    source = "{type: redis, url: 'redis://h', stream: s, event: x}\n"
    for folder, text in {"webhooks": RULE, "sources": source}.items():
        (tmp_path / "fn" / folder).mkdir()
        (tmp_path / "fn" / folder / "orders.yaml").write_text(text)
    found = find([Path("fn/a"), tmp_path / "fn", Path("fn/webhooks"), Path("fn/sources")])
    assert found.problems == []
