"""`stepwell import`: sends lines of JSON as events; each is accepted once, also if the file is sent again."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from stepwell.cli.main import app
from tests.servers import dev

GOOD = [{"name": "page/seen", "data": {"n": n}, "ts": 1780308030000} for n in range(3)]


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "functions").mkdir()
    with dev(tmp_path / "functions", tmp_path / "db") as server:
        monkeypatch.setenv("STEPWELL_URL", server.url)
        monkeypatch.delenv("STEPWELL_ENV", raising=False)
        yield server.url


def run(*arguments: object, code: int = 0, input: bytes | None = None) -> Result:
    result = CliRunner().invoke(app, ["import", *map(str, arguments)], input=input)
    assert result.exit_code == code, result.output
    return result


def events(url: str) -> list[Any]:
    """The data of accepted events, oldest first."""
    return [event["data"] for event in httpx.get(f"{url}/v1/events?limit=1000").json()["data"]][::-1]


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def test_the_events_of_a_file_are_accepted_in_order_and_once(url: str, tmp_path: Path) -> None:
    file = write(tmp_path / "a.ndjson", *GOOD, "", GOOD[0])  # an empty line, and a repeated line
    for _ in range(2):
        assert "sent 4 events" in run(file).stdout
    assert events(url) == [{"n": 0}, {"n": 1}, {"n": 2}, {"n": 0}]


def test_a_gzip_file_and_stdin_are_imported_like_a_plain_file(url: str, tmp_path: Path) -> None:
    file = write(tmp_path / "a.ndjson", *GOOD)
    packed = tmp_path / "a.ndjson.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    run(packed)
    run("-", input=file.read_bytes())
    run(file)
    assert events(url) == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_a_line_that_is_wrong_is_named_and_the_others_are_sent(url: str, tmp_path: Path) -> None:
    long = '{"name": ' + "1" * 2**20
    file = write(tmp_path / "a.ndjson", GOOD[0], "nonsense", {"nmae": "x"}, "[]", GOOD[1], "{", long)
    value = json.loads(run(file, "--json", code=1).stdout)
    assert (value["sent"], [wrong["line"] for wrong in value["wrong"]]) == (2, [2, 3, 3, 4, 6, 7])
    assert events(url) == [{"n": 0}, {"n": 1}]
    assert "line 3, /name: name is missing or not a text" in run(file, code=1).stderr


def test_errors_of_the_server_are_printed_with_the_line(url: str, tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 1}}}
    body = {"name": "page/seen", "version": "1", "schema": schema, "policy": "reject"}
    httpx.post(f"{url}/v1/types", json=body).raise_for_status()
    value = json.loads(run(write(tmp_path / "a.ndjson", *GOOD), "--json", code=1).stdout)
    assert (value["sent"], [(wrong["line"], wrong["pointer"]) for wrong in value["wrong"]]) == (2, [(3, "/data/n")])
    assert events(url)[-2:] == [{"n": 0}, {"n": 1}]


def test_strict_sends_nothing_if_a_line_is_wrong(url: str, tmp_path: Path) -> None:
    run(write(tmp_path / "a.ndjson", *GOOD, "nonsense"), "--strict", code=1)
    assert events(url) == []
    run(write(tmp_path / "b.ndjson", *GOOD), "--strict")
    assert len(events(url)) == 3


def test_a_dry_run_sends_nothing(url: str, tmp_path: Path) -> None:
    assert "3 events are valid; nothing was sent" in run(write(tmp_path / "a.ndjson", *GOOD), "--dry-run").stdout
    assert events(url) == []


@pytest.mark.parametrize("content", [None, b"\x1f\x8bnot gzip"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "a.ndjson.gz"
    if content is not None:
        file.write_bytes(content)
    assert "cannot read" in run(file, code=2).stderr


def test_an_invalid_rate_is_refused(tmp_path: Path) -> None:
    assert "--rate" in run(tmp_path / "a", "--rate", "fast", code=2).stderr
