"""Every cure in an error message works when it is applied literally."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.core.definition.definition import DefinitionError, parse_definition
from stepwell.project.load import LoadError, PlacedProblem, load
from stepwell.project.source import SourceError
from stepwell.project.yaml_text import parse_yaml

CURE = re.compile(
    r"""(?:put it in quotes, (?P<quoted>"(?:[^"\\]|\\.)*"|'.*'))|(?:write (?P<text>"[^"]*")(?: for seconds)?$)"""
    r"""|(?:write (?P<json>[\[{].*[\]}]|true|false)$)|(?:write (?P<number>\S+), without quotes$)"""
    r"""|(?:did you mean `(?P<name>[^`]*)`\?)|(?P<space>write a space after)|(?P<tab>replace the tab)"""
)
YAML = """\
id: f
triggers: [{event: a}]
steps:
  s:
    path: file://.
  t:
    path: file://.
    after:
    - step: s
%s
"""


def problems(folder: Path, text: str) -> list[PlacedProblem]:
    (folder / "stepwell.yaml").write_text(text)
    (folder / "main.sh").write_text("echo 1")
    try:
        load(folder)
    except LoadError as error:
        return error.problems
    return []


# --- wrong values, each with the expected cure -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "quoted"),
    [
        (text, f'"{text}"')
        for text in (
            "012345678901",
            "0755",
            "1.10",
            "1e3",
            "0x1F",
            "0o17",
            ".5",
            "5.",
            "+5",
            "-5",
            "00",
            "10.50",
            "TRUE",
            "True",
            "true",
            "false",
            "null",
            "~",
            "Null",
            "9" * 30,
            "1.0",
            ".inf",
            "-.INF",
            ".nan",
            "0.10",
        )
    ],
)
def test_a_number_in_place_of_text_is_quoted_as_it_was_written(tmp_path: Path, written: str, quoted: str) -> None:
    for form in (f"    env: {{A: {written}}}", f"    env:\n      A: {written}", f"    env: {{A: {written}, B: x}} # c"):
        (problem,) = problems(tmp_path, YAML % form)
        assert problem.message == f"A must be text, not {written}: put it in quotes, {quoted}"
        assert problems(tmp_path, YAML % form.replace(written, quoted)) == []


@pytest.mark.parametrize(
    "written", ["yes", "no", "on", "off", "2024-01-01", "1:30", "1_000", "12:30:45", "0b1", "1.2.3", "y", "''"]
)
def test_values_that_only_yaml_1_1_reads_differently_are_text(tmp_path: Path, written: str) -> None:
    assert problems(tmp_path, YAML % f"    env: {{A: {written}}}") == []


DURATIONS = {
    "30": "30s",
    '"30"': "30s",
    "1.5": "1.5s",
    "1e3": "1000s",
    "0x1F": "31s",
    "5 min": "5m",
    "1 hour": "1h",
    "PT1H30M": "1h30m",
    "1h 30m": "1h30m",
    "10S": "10s",
    "2 weeks": "2w",
    "400d": "366d",
}
PLACES = [
    "path: file://.\n    timeout: %s",
    "path: file://.\n    retries: {backoff: {initial: %s}}",
    "path: file://.\n    retries: {backoff: {max: %s}}",
    "path: file://.\n    after: [{step: s, wait: %s}]",
    "path: file://.\n    after: [{step: s, async: {event: e, ttl: %s}}]",
    "runtime: {type: approval, message: m, timeout: %s}",
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("written", DURATIONS)
def test_a_duration_without_a_unit_gets_one(tmp_path: Path, place: str, written: str) -> None:
    text = f"id: f\ntriggers: [{{event: a}}]\nsteps:\n  s: {{path: file://.}}\n  t:\n    {place}\n"
    (problem,) = problems(tmp_path, text % written)
    assert f'write "{DURATIONS[written]}"' in problem.message
    assert problems(tmp_path, text % f'"{DURATIONS[written]}"') == []


@pytest.mark.parametrize("written", ["0", "-1", "0.0", "99999999999", ".inf", ".nan", "soon", "1:30", "true"])
def test_no_cure_is_suggested_that_would_be_refused(tmp_path: Path, written: str) -> None:
    (problem,) = problems(tmp_path, YAML % f"    timeout: {written}")
    assert CURE.search(problem.message) is None, problem.message


# --- texts that YAML reads differently -------------------------------------------------------------------------------

LINES = [
    "if: !response.ok",
    "if: ! response.ok",
    "if: !has(response.a) && response.b",
    "if: !(response.a || response.b)",
    "if: !response.ok # a remark",
    'if: "a" == response.x',
    "if: 'a' == response.x",
    "if: response.a ? true : false",
    "if: [1, 2] == response.x",
    "if: {'a': 1} == response.x",
    "if: > 5",
    "if: - 5 < response.x",
    "if: *x",
    "if: &x",
    "if: @x",
    "if: %x",
    "if: `x`",
    "if: {{ response.ok }}",
    "if: *x == 1",
    'if: "it\'s" == response.x',
    "if: ? x",
    "if: |x",
    'if: response.a == "b": c',
    "if: !x",
]


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("form", ["      %s", "    - {step: s, %s}", "      wait: 5m\n      %s\n      on: always"])
def test_a_text_that_yaml_reads_differently_is_quoted(line: str, form: str) -> None:
    text = YAML % (form % line)
    if line.endswith("# a remark") and "{" in form:
        return
    with pytest.raises(SourceError) as refused:
        parse_yaml(text)
    cure = CURE.search(refused.value.message)
    assert cure is not None, refused.value.message
    value = line.removeprefix("if: ").removesuffix(" # a remark")
    mended = parse_yaml(text.replace(f"if: {value}", f"if: {cure['quoted']}"))
    assert value in json.dumps(mended.data, ensure_ascii=False).replace('\\"', '"')


@pytest.mark.parametrize(
    "line", ["cron: */5 * * * *", "event: {{ body.type }}", "message: {{ x }} is due", "name: Step 1: send", "- @x"]
)
def test_a_text_that_yaml_cannot_read_is_quoted(line: str) -> None:
    with pytest.raises(SourceError) as refused:
        parse_yaml(line)
    cure = CURE.search(refused.value.message)
    assert cure is not None, refused.value.message
    head, _, value = line.partition("- " if line.startswith("-") else ": ")
    assert parse_yaml(f"{head}{'- ' if line.startswith('-') else ': '}{cure['quoted']}").data in (
        {head: value},
        [value],
    )


def test_tabs_and_missing_spaces_are_reported(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="replace the tab"):
        parse_yaml("a:\n\tb: 1")
    with pytest.raises(SourceError, match="write a space after the `:` of `timeout`"):
        parse_yaml("s:\n  timeout:30\n  path: x")


@given(st.text(st.sampled_from("ab !&*%@`{}[],:#|>'\"-?. \t1"), min_size=1, max_size=12))
def test_every_cure_can_be_parsed(value: str) -> None:
    text = f"a: 1\nif: {value}\nb: 2"
    try:
        parse_yaml(text)
    except SourceError as error:
        cure = CURE.search(error.message)
        if cure and cure["quoted"] and error.line == 2:
            plain = value.strip(" ")
            inside = parse_yaml(f"x: {cure['quoted']}").data["x"]
            assert inside in plain or inside.strip() in plain


# --- other cures -----------------------------------------------------------------------------------------------------

EDGES = [{"step": "s", "async": {"event": "e", "ttl": "1d", "onTimeout": "yes"}}]
STEPS: list[dict[str, Any]] = [
    {"retries": {"attempts": "3"}},
    {"retries": 3},
    {"retries": {"backoff": {"factor": "2.5"}}},
    {"after": ["s"]},
    {"after": [{"step": "s", "if": True}]},
    {"secrets": "KEY"},
    {"runtime": "lambda"},
    {"runtime": "docker"},
    {"runtime": {"type": "lambda", "command": "python3 main.py"}},
    {"runtime": {"type": "lambda", "memory": "256"}},
    {"env": {"A": 1, "B": 1.5, "C": True, "D": None}},
    {"name": 12},
    {"tmeout": "5s"},
    {"jion": "all"},
    {"after": {"step": "s"}},
    {"after": EDGES},
    {"after": "s"},
    {"runtime": {"type": "lamda"}},
    {"after": [{"step": "ss"}]},
    {"secrets": [1]},
    {"runtime": {"type": "docker", "image": "x", "cpu": "0.5"}},
    {"id": 5},
    {"env": {"A": [1]}},
    {"timeout": 5, "name": 5},
]


@pytest.mark.parametrize("fields", STEPS, ids=json.dumps)
def test_a_cure_works_when_it_is_applied(fields: dict[str, Any]) -> None:
    raw = {
        "id": "f",
        "triggers": [{"event": "a"}],
        "steps": {"s": {"path": "file://."}, "t": {"path": "file://.", **fields}},
    }
    with pytest.raises(DefinitionError) as refused:
        parse_definition(raw)
    followed = 0
    for problem in refused.value.problems:
        if cure := CURE.search(problem.message):
            follow(raw, problem.pointer, cure)
            followed += 1
    if followed == len(refused.value.problems):
        parse_definition(raw)


@pytest.mark.parametrize(
    "triggers", [[{"event": 5}], [5], ["a"], {"event": "a"}, [{"evnt": "a"}], [{"cron": "* * * * *", "timezone": 1}]]
)
def test_a_cure_for_a_trigger_works_when_it_is_applied(triggers: Any) -> None:
    raw = {"id": "f", "triggers": triggers}
    with pytest.raises(DefinitionError) as refused:
        parse_definition(raw)
    cures = [(p.pointer, cure) for p in refused.value.problems if (cure := CURE.search(p.message))]
    for pointer, cure in cures:
        follow(raw, pointer, cure)
    if len(cures) == len(refused.value.problems):
        parse_definition(raw)


def follow(raw: Any, pointer: Any, cure: re.Match[str]) -> None:
    """Applies the cure of a message."""
    *above, last = pointer
    for part in above:
        raw = raw[part]
    if cure["name"] and last in raw and cure["name"] != raw[last]:
        if isinstance(raw, dict) and (last in ("type", "step")):
            raw[last] = cure["name"]
        else:
            raw[cure["name"]] = raw.pop(last)
    elif (text := cure["quoted"] or cure["text"] or cure["json"] or cure["number"]) is not None:
        raw[last] = json.loads(text)
