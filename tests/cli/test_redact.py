"""`--redact`: values that are not copied to another server."""

from __future__ import annotations

from typing import Any

import pytest

from stepwell.cli.replay.redact import read_paths, redact


@pytest.mark.parametrize(
    ("path", "data", "after"),
    [
        ("data.a", {"a": 1}, {"a": "[redacted]"}),
        ("data.a", {"a": {"b": [1]}}, {"a": "[redacted]"}),
        ("data.a", {"a": None}, {"a": "[redacted]"}),
        ("data.a", {"b": 1}, {"b": 1}),
        ("data.a.b", {"a": 1}, {"a": 1}),
        ("data.a.b", {"a": {"b": 1, "c": 2}}, {"a": {"b": "[redacted]", "c": 2}}),
        ("data.a.*", {"a": [1, [2]]}, {"a": ["[redacted]", "[redacted]"]}),
        ("data.a.*.b", {"a": [{"b": 1}, 2, {"c": 3}]}, {"a": [{"b": "[redacted]"}, 2, {"c": 3}]}),
        ("data.*.b", {"x": {"b": 1}, "y": {"b": 2}}, {"x": {"b": "[redacted]"}, "y": {"b": "[redacted]"}}),
        ("data.a.0", {"a": [1]}, {"a": [1]}),
        ("data.a.b.c", {"a": {"b": "text"}}, {"a": {"b": "text"}}),
        ("data.ä.名", {"ä": {"名": 1}}, {"ä": {"名": "[redacted]"}}),
    ],
)
def test_the_values_at_the_paths_are_replaced(path: str, data: Any, after: Any) -> None:
    event = {"data": data, "user": {"a": 1}}
    redact(event, read_paths([path]))
    assert event == {"data": after, "user": {"a": 1}}


def test_paths_can_be_given_in_one_option_or_several() -> None:
    assert read_paths(["data.a, user.email", "data.b.*"]) == [("data", "a"), ("user", "email"), ("data", "b", "*")]


@pytest.mark.parametrize("path", ["data", "name", "event.data.a", "data.", "data..a", ".data.a", "id", "*"])
def test_an_invalid_path_is_refused_with_an_example(path: str) -> None:
    with pytest.raises(ValueError, match="write one like data"):
        read_paths([path])
