"""Definitions that cannot be put in service are reported: at the start and by `/healthz`; with `--strict` the server
does not start. A function that is not live is never reported as live."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.servers import Json, Server, api, cli, dev, eventually, new_key, program, serve, write_function


def broken_definition(folder: Path) -> str:
    (folder / "bad").mkdir()
    (folder / "bad" / "stepwell.json").write_text('{"id": 1, "secret-reason": 2}')
    return "bad/stepwell.json"


def broken_type(folder: Path) -> str:
    (folder / "schemas").mkdir()
    (folder / "schemas" / "odd.1.schema.json").write_text("{")
    return "schemas/odd.1.schema.json"


def broken_webhook(folder: Path) -> str:
    (folder / "webhooks").mkdir()
    (folder / "webhooks" / "shop.json").write_text("{")
    return "webhooks/shop.json"


def not_runnable(folder: Path) -> str:
    step = program("true", runtime={"type": "lambda", "command": ["no-such-program"]})
    write_function(folder / "bad", "bad", a=step)
    return "bad"


BROKEN = [broken_definition, broken_type, broken_webhook, not_runnable]


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    write_function(tmp_path / "f" / "good", "good")
    return tmp_path / "f"


def health(server: Server, key: str | None = None) -> Json:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    answer = httpx.get(f"{server.url}/healthz", headers=headers)
    assert answer.status_code == 200
    found: Json = answer.json()
    return found


def messages(server: Server) -> list[str]:
    return [line["message"] for line in server.lines]


def test_a_server_whose_definitions_all_load_is_ok(functions: Path, tmp_path: Path) -> None:
    with serve(functions, tmp_path / "db", "--strict") as server:
        assert health(server).keys() == {"status", "version"}
        assert health(server)["status"] == "ok"


@pytest.mark.parametrize("make_broken", BROKEN)
def test_healthz_reports_definitions_that_are_not_in_service(
    functions: Path, tmp_path: Path, make_broken: Callable[[Path], str]
) -> None:
    """Without a key, `/healthz` names the definition only: the reason and path need the scope `manage`."""
    name = make_broken(functions)
    keys = {scope: new_key(tmp_path / "db", scope) for scope in ("send", "manage")}
    with serve(functions, tmp_path / "db") as server:
        for key in (None, "wrong", keys["send"]):
            found = health(server, key)
            assert (found["status"], found["definitions"]) == ("degraded", [{"definition": name}])
        (definition,) = health(server, keys["manage"])["definitions"]
        assert definition["definition"] == name
        assert str(functions) in definition["message"]
        lived = [line["function"] for line in server.lines if line["message"] == "live"]
        assert lived == ["good"]


@pytest.mark.parametrize("make_broken", BROKEN)
def test_a_strict_server_does_not_start_without_all_of_its_definitions(
    functions: Path, tmp_path: Path, make_broken: Callable[[Path], str]
) -> None:
    name = make_broken(functions)
    done = cli("serve", str(functions), "--strict", "--port", "0", "--db", str(tmp_path / "db"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: --strict is given, and not everything is in service")
    assert name in done.stderr
    assert "listening" not in done.stdout


def test_a_strict_server_runs_nothing_if_it_does_not_start(functions: Path, tmp_path: Path) -> None:
    """The database is not changed, so the old version is still live."""
    with serve(functions, tmp_path / "db") as server:
        server.stop()
    broken_definition(functions)
    write_function(functions / "good", "good", a=program("echo 2"))
    assert cli("serve", str(functions), "--strict", "--port", "0", "--db", str(tmp_path / "db")).returncode == 1
    (tmp_path / "none").mkdir()
    key = new_key(tmp_path / "db")
    with serve(functions, tmp_path / "db") as server, api(server, key) as http:
        assert {item["id"]: item["version"] for item in http.get("/v1/functions")["data"]} == {"good": 2}


def test_dev_is_degraded_until_the_definition_is_mended(functions: Path, tmp_path: Path) -> None:
    broken_definition(functions)
    with dev(functions, tmp_path / "db") as server:
        server.line(lambda line: line["kind"] == "broken" and line["count"] == 1)
        found = health(server)
        assert found["status"] == "degraded"
        assert all("message" in definition for definition in found["definitions"])
        write_function(functions / "bad", "bad")
        eventually(lambda: health(server)["status"] == "ok")


def test_a_paused_or_deleted_function_is_not_logged_as_live(functions: Path, tmp_path: Path) -> None:
    write_function(functions / "other", "other")
    key = new_key(tmp_path / "db")
    with serve(functions, tmp_path / "db") as server, api(server, key) as http:
        assert http.http.post("/v1/functions/good/pause").status_code == 200
        assert http.http.delete("/v1/functions/other").status_code in (200, 204)
        server.stop()
    with serve(functions, tmp_path / "db") as server:
        assert "live" not in messages(server)
        fields = {line["function"]: line["message"] for line in server.lines if "function" in line}
        assert (fields["good"][:6], fields["other"][:8]) == ("paused", "not live")
        assert health(server)["status"] == "ok"
        server.stop()
    with dev(functions, tmp_path / "db") as server:
        server.wait_until_ready()
        fields = {line["function"]: line["why"] for line in server.lines if line["kind"] == "missing"}
        assert ("stepwell resume good" in fields["good"], "deleted" in fields["other"]) == (True, True)
        assert not [line for line in server.lines if line["kind"] == "live"]
