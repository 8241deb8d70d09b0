"""Event types on disk: the event and version of a file, and invalid files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stepwell.project.load import LoadError, load
from stepwell.project.schemas import find_types, version_key
from tests.servers import write_function

TEXT = {"type": "string"}


def schema(file: Path, content: Any = None) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        content if isinstance(content, str) else json.dumps({"type": "object"} if content is None else content)
    )
    return file


@pytest.mark.parametrize(
    ("path", "name", "v"),
    [
        ("order/placed.2026-11-23.1.schema.json", "order/placed", "2026-11-23.1"),
        ("user/signed.up.2026-11-23.1.schema.json", "user/signed.up", "2026-11-23.1"),
        ("plain.1.schema.json", "plain", "1"),
        ("a/b/c.v2.schema.json", "a/b/c", "v2"),
        ("2fa/1.done.3.schema.json", "2fa/1.done", "3"),
        ("ünï/cødé.1.schema.json", "ünï/cødé", "1"),
    ],
)
def test_a_files_path_gives_the_event_and_version(tmp_path: Path, path: str, name: str, v: str) -> None:
    schema(tmp_path / "f" / "schemas" / path)
    (event_type,) = find_types([tmp_path]).types
    assert (event_type.name, event_type.v, event_type.policy) == (name, v, None)


def test_a_schema_can_contain_the_name_and_version(tmp_path: Path) -> None:
    schema(
        tmp_path / "schemas" / "x.schema.json",
        {"x-stepwell-event": "app/v1.2.done", "x-stepwell-v": "beta", "x-stepwell-policy": "reject"},
    )
    (event_type,) = find_types([tmp_path]).types
    assert (event_type.name, event_type.v, event_type.policy) == ("app/v1.2.done", "beta", "reject")


def test_the_newest_version_comes_last(tmp_path: Path) -> None:
    for v in ("2026-11-23.10", "2026-11-23.2", "2025-01-01.1", "2026-11-23.9"):
        schema(tmp_path / "schemas" / f"a.{v}.schema.json")
    found = find_types([tmp_path]).by_name()["a"]
    assert [event_type.v for event_type in found] == ["2025-01-01.1", "2026-11-23.2", "2026-11-23.9", "2026-11-23.10"]
    assert version_key("v2") < version_key("v10")


def test_folders_beside_and_in_functions_count_and_hidden_ones_do_not(tmp_path: Path) -> None:
    write_function(tmp_path / "functions" / "welcome", "welcome")
    schema(tmp_path / "functions" / "schemas" / "a.1.schema.json")
    schema(tmp_path / "functions" / "welcome" / "schemas" / "b.1.schema.json")
    schema(tmp_path / "functions" / "node_modules" / "schemas" / "c.1.schema.json")
    schema(tmp_path / ".venv" / "schemas" / "d.1.schema.json")
    for path in (
        tmp_path,
        tmp_path / "functions",
        tmp_path / "functions" / "welcome",
        tmp_path / "functions" / "welcome" / "stepwell.json",
    ):
        assert {event_type.name for event_type in find_types([path]).types} == {"a", "b"}


def test_a_file_without_a_version_is_a_warning(tmp_path: Path) -> None:
    schema(tmp_path / "schemas" / "function.schema.json")
    found = find_types([tmp_path])
    assert (found.types, found.problems) == ([], [])
    assert "rename it to function.1.schema.json" in str(found.warnings[0])


@pytest.mark.parametrize(
    ("content", "place", "message"),
    [
        ('{\n "type": "strng"\n}', "2:2", "type must be one of null"),
        ('{\n "properties": {\n  "a": {"$ref": "https://example.com/x.json"}}}', "3:9", "is not fetched"),
        ('{"properties": {"a": {"$ref": "#/$defs/b"}}}', "1:23", "does not refer to a schema"),
        ('{"$schema": "http://json-schema.org/draft-07/schema#"}', "1:2", "2020-12"),
        ('{"a": 1, "a": 2}', "1:10", "twice"),
        ('{"pattern": "(?=x)"}', "1:2", "linear time"),
        ('{"x-stepwell-policy": "maybe"}', "1:2", "reject, warn, off"),
        ('{"x-stepwell-event": "stepwell/x"}', "1:1", "reserved for the engine"),
        ('{"x-stepwell-event": "a/*"}', "1:1", "wildcard"),
        ('{"x-stepwell-v": 3}', "1:1", "not a version"),
        ("[]", "1:1", "a schema must be an object"),
        ("", "1:1", "is empty"),
        ('{"$ref": "#"}', "1:1", "refers to itself"),
        ('{"a":' * 70 + "1" + "}" * 70, "1:326", "nested more than 64"),
    ],
)
def test_an_invalid_schema_is_reported_with_its_place(tmp_path: Path, content: str, place: str, message: str) -> None:
    file = schema(tmp_path / "schemas" / "a.1.schema.json", content)
    (problem,) = find_types([tmp_path]).problems
    assert str(problem).startswith(f"{file}:{place}: ")
    assert message in problem.message


def test_two_schemas_of_one_version_are_refused(tmp_path: Path) -> None:
    schema(tmp_path / "one" / "schemas" / "a.1.schema.json", TEXT)
    schema(tmp_path / "two" / "schemas" / "a.1.schema.json", TEXT)
    assert find_types([tmp_path]).problems == []
    schema(tmp_path / "two" / "schemas" / "a.1.schema.json", {"type": "number"})
    assert "a 1 has a different schema in" in str(find_types([tmp_path]).problems[0])


def test_a_trigger_can_contain_its_type_or_name_a_file(tmp_path: Path) -> None:
    schema(tmp_path / "order.schema.json", TEXT)
    for definition in ({"format": "json-schema", "synced": True, "def": TEXT}, {"def": "file://./order.schema.json"}):
        write_function(tmp_path, "f", {"event": "a", "definition": definition})
        (trigger,) = load(tmp_path).normalised()["triggers"]
        assert trigger["definition"] == {
            "format": "json-schema",
            "synced": definition.get("synced", False),
            "def": TEXT,
        }


@pytest.mark.parametrize(
    ("definition", "place", "message"),
    [
        ({"def": {"type": "strng"}}, "stepwell.json", "type must be one of null"),
        ({"def": "file://./missing.json"}, "stepwell.json", "does not exist"),
        ({"def": "file://./bad.json"}, "bad.json:1:2: ", "type must be one of null"),
        ({"def": {"$ref": "file:///etc/passwd"}}, "stepwell.json", "is not fetched"),
    ],
)
def test_an_invalid_type_in_a_trigger_is_refused_at_load(
    tmp_path: Path, definition: Any, place: str, message: str
) -> None:
    schema(tmp_path / "bad.json", {"type": "strng"})
    write_function(tmp_path, "f", {"event": "a", "definition": definition})
    with pytest.raises(LoadError) as refused:
        load(tmp_path)
    assert place in str(refused.value)
    assert message in str(refused.value)


def test_a_type_file_outside_the_functions_folder_is_refused(tmp_path: Path) -> None:
    outside = schema(tmp_path / "outside.json", TEXT)
    write_function(tmp_path / "f", "f", {"event": "a", "definition": {"def": "file://./link.json"}})
    (tmp_path / "f" / "link.json").symlink_to(outside)
    with pytest.raises(LoadError, match="leads out of the function's folder"):
        load(tmp_path / "f")
