"""`/v1` on a real server: shapes, lists, errors, keys, the OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from jsonschema import Draft202012Validator

from tests.servers import Api, Json, Server, api, dev, eventually, new_key, program, serve, write_function

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
RUN = {
    "id", "function_id", "function_version", "event_id", "status", "user", "created_at", "started_at", "ended_at",
    "output", "error", "rerun_of", "replay", "cancelled_by", "reason", "timeout", "replaced_by", "cancel", "steps",
}  # fmt: skip
ATTEMPT = {"attempt", "status", "queued_at", "started_at", "ended_at", "error", "logs"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("v1")
    write_function(
        folder / "f" / "two",
        "two",
        one=program("echo some log >&2; echo '{\"n\": 1}'"),
        two=program("echo '[2]'", after=[{"step": "one"}]),
    )
    write_function(folder / "f" / "failing", "failing", "fail", a=program('echo \'{"status": 404, "why": 1}\''))
    write_function(
        folder / "f" / "waiting", "waiting", "wait", a=program("echo 1", after=[{"step": "$trigger", "wait": "1h"}])
    )
    write_function(folder / "f" / "asking", "asking", "ask", a={"runtime": {"type": "approval", "message": "Really?"}})
    write_function(folder / "f" / "choosy", "choosy", {"event": "go", "expression": "data.missing == 1"})
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with dev(folder / "f", folder / "db") as server:
        yield server


@pytest.fixture(scope="module")
def v1(server: Server) -> Iterator[Api]:
    with api(server) as client:
        yield client


def problem(answer: httpx.Response, status: int) -> Json:
    """The problem document (RFC 9457) that the answer must be."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: Json = answer.json()
    assert document["status"] == status
    assert {"type", "title", "detail"} <= set(document)
    return document


def all_pages(v1: Api, path: str, **query: Any) -> list[Json]:
    items: list[Json] = []
    after: Json = {}
    while True:
        page = v1.get(path, **query, **after)
        assert set(page) == {"data", "next"}
        items += page["data"]
        if page["next"] is None:
            return items
        assert page["data"], "a page with a next one is never empty"
        after = {"after": page["next"]}


# --- shapes ----------------------------------------------------------------------------------------------------------


def test_a_completed_run_is_shown_with_its_steps_attempts_and_logs(v1: Api) -> None:
    event_id = v1.send("go", user={"external_id": "ada", "id": 5})
    run = v1.ended(event_id)
    assert set(run) == RUN
    assert (run["function_id"], run["function_version"], run["event_id"]) == ("two", 1, event_id)
    assert (run["status"], run["user"], run["output"], run["error"]) == ("completed", "ada", {"two": [2]}, None)
    one, two = run["steps"]["one"], run["steps"]["two"]
    assert (one["status"], one["output"], one["error"]) == ("completed", {"n": 1}, None)
    assert (two["status"], two["output"], two["error"]) == ("completed", [2], None)
    (attempt,) = one["attempts"]
    assert set(attempt) == ATTEMPT
    assert (attempt["attempt"], attempt["status"], attempt["error"]) == (1, "completed", None)
    assert attempt["logs"] == "some log\n"
    times = [run["created_at"], attempt["queued_at"], attempt["started_at"], attempt["ended_at"], run["ended_at"]]
    assert all(TIME.fullmatch(time) for time in times)
    assert times == sorted(times)
    assert datetime.fromisoformat(run["started_at"]).tzinfo is not None


def test_a_failed_run_is_shown_with_its_error(v1: Api) -> None:
    run = v1.ended(v1.send("fail"))
    assert (run["status"], run["output"]) == ("failed", None)
    error = run["steps"]["a"]["error"]
    assert (error["status"], error["output"]) == (404, {"status": 404, "why": 1})
    assert error["kind"]
    assert error["message"]
    assert run["error"] == {"step": "a", **error}
    assert run["steps"]["a"]["attempts"][0]["error"] == error


def test_a_step_behind_a_delay_is_shown_as_waiting(v1: Api) -> None:
    (run,) = v1.runs_of(v1.send("wait"))
    assert (run["status"], run["ended_at"]) == ("running", None)
    step = run["steps"]["a"]
    assert (step["status"], step["attempts"], step["output"]) == ("waiting", [], None)
    assert TIME.fullmatch(step["after"][0]["until"])


def test_an_event_has_the_time_of_acceptance_and_the_functions_not_started(v1: Api) -> None:
    event = v1.get(f"/v1/events/{v1.send('go', data={'x': 1}, v='1')}")
    shown = {"name", "data", "user", "id", "ts", "v", "accepted_at", "not_started", "replay", "invalid", "erased"}
    assert set(event) == shown
    assert TIME.fullmatch(event["accepted_at"])
    (miss,) = event["not_started"]
    assert (miss["function_id"], miss["expression"]) == ("choosy", "data.missing == 1")
    assert "missing" in miss["problem"]


def test_functions_are_listed_with_their_versions(v1: Api) -> None:
    listed = v1.get("/v1/functions")
    assert set(listed) == {"data", "next"}
    assert [function["id"] for function in listed["data"]] == ["asking", "choosy", "failing", "two", "waiting"]
    two = v1.get("/v1/functions/two")
    assert two == listed["data"][3]
    assert (two["version"], [version["version"] for version in two["versions"]]) == (1, [1])
    assert list(two["steps"]) == ["one", "two"]
    assert two["triggers"][0]["event"] == "go"
    assert two["waits_by_name"] == 0
    assert two["flow_control"] == {}


@pytest.mark.parametrize("event_id", ["a/b", "50% off", "ü?x=1#y", "runs", "../../x", "a/runs/b", "a;b,c'\"<>"])
def test_an_event_is_found_whatever_id_its_sender_chose(v1: Api, event_id: str) -> None:
    assert v1.send("odd", id=event_id) == event_id
    path = f"/v1/events/{quote(event_id, safe='')}"
    assert v1.get(path)["id"] == event_id
    assert v1.get(f"{path}/runs") == {"data": [], "next": None}


# --- lists -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowd(v1: Api) -> list[str]:
    """Twelve events with a new name, oldest first."""
    answer = v1.http.post("/e", json=[{"name": "crowd", "data": {"n": n}} for n in range(12)])
    return list(answer.json()["ids"])


@pytest.mark.parametrize("limit", [1, 5, 12, 13, 1000])
def test_pages_hold_every_item_once_the_newest_first(v1: Api, crowd: list[str], limit: int) -> None:
    assert [event["id"] for event in all_pages(v1, "/v1/events", name="crowd", limit=limit)] == crowd[::-1]


def test_a_page_does_not_change_when_newer_items_arrive(v1: Api) -> None:
    v1.http.post("/e", json=[{"name": "growing", "id": f"grown-{n}"} for n in range(4)])
    first = v1.get("/v1/events", name="growing", limit=2)
    v1.send("growing", id="grown-later")
    second = v1.get("/v1/events", name="growing", limit=2, after=first["next"])
    assert [event["id"] for event in first["data"] + second["data"]] == [f"grown-{n}" for n in (3, 2, 1, 0)]
    assert second["next"] is None


def test_a_page_has_50_items_by_default(v1: Api) -> None:
    v1.http.post("/e", json=[{"name": "fifty"}] * 51)
    page = v1.get("/v1/events", name="fifty")
    assert len(page["data"]) == 50
    assert len(v1.get("/v1/events", name="fifty", after=page["next"])["data"]) == 1


@pytest.mark.parametrize("path", ["/v1/events", "/v1/runs"])
@pytest.mark.parametrize("limit", ["0", "-1", "1001", "ten", "1.5", "", " 5", "٣", "9" * 40, "0" * 9 + "9" * 9])
def test_a_limit_is_a_number_from_1_to_1000(v1: Api, path: str, limit: str) -> None:
    assert "limit" in problem(v1.http.get(path, params={"limit": limit}), 400)["detail"]


@pytest.mark.parametrize("path", ["/v1/events", "/v1/runs"])
@pytest.mark.parametrize(
    "cursor", ["", "x", "bm9uc2Vuc2U", "czk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5", "ü", "s1", "\x00", "=" * 3]
)
def test_an_invalid_cursor_is_a_bad_request(v1: Api, path: str, cursor: str) -> None:
    assert "after" in problem(v1.http.get(path, params={"after": cursor}), 400)["detail"]


def test_runs_are_filtered_by_function_status_and_user(v1: Api) -> None:
    user = {"external_id": "filter", "email": "f@example.com"}
    good, bad = v1.ended(v1.send("go", user=user))["id"], v1.ended(v1.send("fail", user=user))["id"]
    (waiting,) = [run["id"] for run in v1.runs_of(v1.send("wait", user=user))]

    def found(**query: str) -> list[str]:
        return [run["id"] for run in all_pages(v1, "/v1/runs", user="filter", **query)]

    assert found() == [waiting, bad, good]
    assert found(function="two") == [good]
    assert found(function="nothing") == []
    assert found(status="completed") == [good]
    assert found(status="failed") == [bad]
    assert found(status="running") == [waiting]
    assert found(status="cancelled") == []
    assert found(status="failed", function="two") == []
    assert {run["function_id"] for run in all_pages(v1, "/v1/runs", function="two", limit=1)} == {"two"}
    assert [run["id"] for run in all_pages(v1, "/v1/runs", user="f@example.com")] == found()


@pytest.mark.parametrize(
    ("user", "key"),
    [
        ({"external_id": "e-1", "id": "i-1", "email": "m-1", "phone": "p-1"}, "e-1"),
        ({"id": "i-2", "email": "m-2", "phone": "p-2"}, "i-2"),
        ({"id": 4711}, "4711"),
        ({"email": "m-3", "phone": "p-3"}, "m-3"),
        ({"phone": "p-4", "name": "Ada"}, "p-4"),
    ],
)
def test_a_user_is_external_id_else_id_else_email_else_phone(v1: Api, user: Json, key: str) -> None:
    event_id = v1.send("wait", user=user)
    assert [event["id"] for event in v1.get("/v1/events", user=key)["data"]] == [event_id]
    (run,) = v1.get("/v1/runs", user=key)["data"]
    assert (run["event_id"], run["user"]) == (event_id, key)


def test_an_unknown_status_is_refused_with_the_valid_ones(v1: Api) -> None:
    detail = problem(v1.http.get("/v1/runs", params={"status": "done"}), 400)["detail"]
    assert all(status in detail for status in ("running", "completed", "failed", "cancelled"))


@pytest.mark.parametrize(
    "path",
    ["/v1/events", "/v1/runs", "/v1/functions", "/v1/functions/two", "/v1/runs/{run}", "/v1/events/{event}",
     "/v1/events/{event}/runs"],
)  # fmt: skip
def test_an_unknown_parameter_is_refused_by_name(v1: Api, path: str) -> None:
    event_id = v1.send("wait")
    path = path.format(event=event_id, run=v1.runs_of(event_id)[0]["id"])
    assert "'colour'" in problem(v1.http.get(path, params={"colour": "red"}), 400)["detail"]


# --- cancel and rerun ------------------------------------------------------------------------------------------------


def test_a_run_is_cancelled_once_and_again_without_harm(v1: Api) -> None:
    (run,) = v1.runs_of(v1.send("wait"))
    for _ in range(2):
        answer = v1.http.delete(f"/v1/runs/{run['id']}")
        assert answer.status_code == 200
        assert (answer.json()["status"], answer.json()["steps"]["a"]["status"]) == ("cancelled", "cancelled")
    assert set(answer.json()) == RUN


def test_an_ended_run_cannot_be_cancelled(v1: Api) -> None:
    for name in ("go", "fail"):
        run = v1.ended(v1.send(name))
        assert run["status"] in problem(v1.http.delete(f"/v1/runs/{run['id']}"), 409)["detail"]
        assert v1.run(run["id"]) == run


def test_a_rerun_is_a_new_run_of_the_same_event(v1: Api) -> None:
    event_id = v1.send("go")
    first = v1.ended(event_id)
    answer = v1.http.post(f"/v1/runs/{first['id']}/rerun")
    assert answer.status_code == 201
    again = answer.json()
    assert set(again) == RUN
    assert (again["rerun_of"], again["event_id"], first["rerun_of"]) == (first["id"], event_id, None)
    assert again["id"] != first["id"]
    eventually(lambda: v1.run(again["id"])["status"] != "running")
    done = v1.run(again["id"])
    assert (done["status"], done["output"]) == ("completed", first["output"])
    assert [run["id"] for run in v1.runs_of(event_id)] == [again["id"], first["id"]]


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/events/nothing"),
        ("GET", "/v1/events/nothing/runs"),
        ("GET", "/v1/functions/nothing"),
        ("GET", "/v1/runs/nothing"),
        ("DELETE", "/v1/runs/nothing"),
        ("POST", "/v1/runs/nothing/rerun"),
        ("GET", "/v1/nothing"),
        ("GET", "/nothing"),
        ("GET", "/v2/runs"),
        ("GET", "/v1/runs/%00"),
        ("GET", "/v1/events/%ff"),
        ("GET", "/v1/runs/" + "x" * 3000),
    ],
)
def test_a_missing_item_is_a_404(v1: Api, method: str, path: str) -> None:
    problem(v1.http.request(method, path), 404)


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/runs"), ("DELETE", "/v1/events"), ("PUT", "/v1/runs/x"), ("POST", "/healthz")]
)
def test_a_method_that_is_not_allowed_is_a_405(v1: Api, method: str, path: str) -> None:
    answer = v1.http.request(method, path)
    problem(answer, 405)
    assert "GET" in answer.headers["allow"]


# --- the document ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def document(v1: Api) -> Json:
    found: Json = v1.get("/openapi.json")
    return found


def test_the_openapi_document_is_valid(document: Json) -> None:
    from openapi_spec_validator import validate  # the import takes a second, and only this test needs it

    assert document["openapi"].startswith("3.1")
    validate(document)


def test_the_openapi_document_names_every_endpoint(document: Json) -> None:
    operations = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert operations == {
        ("POST", "/e"), ("POST", "/e/{key}"),
        ("GET", "/v1/events"), ("GET", "/v1/events/{id}"), ("GET", "/v1/events/{id}/runs"),
        ("GET", "/v1/functions"), ("GET", "/v1/functions/{id}"), ("DELETE", "/v1/functions/{id}"),
        ("POST", "/v1/functions"),
        ("POST", "/v1/functions/{id}/replay"),
        ("GET", "/v1/functions/{id}/versions"), ("GET", "/v1/functions/{id}/routing"),
        ("PUT", "/v1/functions/{id}/routing"), ("POST", "/v1/functions/{id}/promote"),
        ("POST", "/v1/functions/{id}/rollback"), ("POST", "/v1/functions/{id}/pause"),
        ("POST", "/v1/functions/{id}/resume"), ("PUT", "/v1/functions/{id}/limits"),
        ("GET", "/v1/limits"), ("PUT", "/v1/limits"),
        ("GET", "/v1/runs"), ("GET", "/v1/runs/{id}"), ("DELETE", "/v1/runs/{id}"), ("POST", "/v1/runs/{id}/rerun"),
        ("GET", "/v1/users"), ("GET", "/v1/users/timeline"), ("DELETE", "/v1/users"),
        ("GET", "/healthz"),
        ("GET", "/v1/types"), ("POST", "/v1/types"), ("GET", "/v1/types/{id}"), ("PATCH", "/v1/types/{id}"),
        ("PUT", "/v1/types"), ("DELETE", "/v1/types/{id}"),
        ("GET", "/v1/settings"), ("PUT", "/v1/settings"),
        ("GET", "/v1/approvals"), ("POST", "/v1/approvals/{token}"),
        ("GET", "/v1/webhooks"), ("GET", "/v1/webhooks/{id}"), ("PUT", "/v1/webhooks/{id}"),
        ("DELETE", "/v1/webhooks/{id}"), ("POST", "/webhooks/{name}"),
        ("GET", "/v1/sources"), ("GET", "/v1/sources/{id}"), ("PUT", "/v1/sources/{id}"),
        ("DELETE", "/v1/sources/{id}"),
        ("POST", "/v1/sources/{id}/pause"), ("POST", "/v1/sources/{id}/resume"), ("POST", "/v1/sources/{id}/replay"),
        ("GET", "/v1/sources/{id}/quarantine"), ("GET", "/v1/sources/{id}/quarantine/{record}"),
        ("POST", "/v1/sources/{id}/quarantine/retry"), ("POST", "/v1/sources/{id}/quarantine/discard"),
        ("GET", "/v1/workers"), ("POST", "/v1/workers/{id}/quiet"), ("POST", "/v1/workers/{id}/terminate"),
    }  # fmt: skip


REFUSED = {
    ("put", "routing"), ("post", "promote"), ("post", "rollback"), ("post", "functions"),  # with one version
    ("post", "quiet"), ("post", "terminate"),  # without a worker
    ("put", "limits"),  # without a limit
}  # fmt: skip


def test_every_path_of_the_document_answers_with_the_documented_shape(v1: Api, document: Json) -> None:
    event_id = v1.send("wait")
    run_id = v1.runs_of(event_id)[0]["id"]
    v1.ended(v1.send("fail", user={"id": "grace", "plan": "pro"}))
    asking = v1.run(v1.runs_of(v1.send("ask"))[0]["id"])
    token = asking["steps"]["a"]["approval"]["approve_url"].rpartition("/")[2]
    ids = {
        "/v1/events/{id}": event_id,
        "/v1/functions/{id}": "two",
        "/v1/runs/{id}": run_id,
        "/v1/types/{id}": "a/b",
        "/v1/webhooks/{id}": "shop",
    }
    bodies: dict[tuple[str, str], Json] = {
        ("post", "/e"): {"name": "documented"},
        ("post", "/e/{key}"): {"name": "documented"},
        ("post", "/v1/functions/{id}/replay"): {"replay": "r", "events": [{"id": event_id}]},
        ("post", "/v1/types"): {"name": "a/b", "version": "1", "schema": {"type": "object"}},
        ("put", "/v1/types"): {"types": [{"name": "a/b", "version": "1", "schema": {"type": "object"}}]},
        ("patch", "/v1/types/{id}"): {"policy": "warn", "default": "1"},
        ("put", "/v1/settings"): {"unknown_types": "off"},
        ("put", "/v1/webhooks/{id}"): {"event": "hooked", "verify": None},
    }
    queries: dict[tuple[str, str], dict[str, str]] = {
        ("delete", "/v1/types/{id}"): {"version": "1"},
        ("get", "/v1/users/timeline"): {"id": "grace"},
        ("delete", "/v1/users"): {"id": "grace"},
    }
    methods = [(path, method) for path, item in document["paths"].items() for method in sorted(item, reverse=True)]
    methods = [
        pair for pair in methods if not pair[0].startswith("/v1/sources/")
    ]  # tests/test_http_page.py has a broker
    for path, method in sorted(methods, key=lambda pair: pair[1] == "delete"):  # items are read before they are deleted
        operation = document["paths"][path][method]
        its_id = next((value for start, value in ids.items() if path.startswith(start)), "")
        where = path.format(id=its_id, key="k", token=token, name="shop")
        query = queries.get((method, path), {})
        answer = v1.http.request(method, where, json=bodies.get((method, path)), params=query)
        (status,) = [status for status in operation["responses"] if status.startswith("2")]
        if (method, path.rpartition("/")[2]) in REFUSED:
            status = str(answer.status_code)
        assert answer.status_code == int(status), (method, path, answer.text)
        check(document, operation["responses"][status], answer)
    refusal = v1.http.get("/v1/runs/nothing")
    check(document, document["paths"]["/v1/runs/{id}"]["get"]["responses"]["404"], refusal)


def check(document: Json, response: Json, answer: httpx.Response) -> None:
    """Checks that the answer has the shape in the document."""
    ((content_type, media),) = response["content"].items()
    assert answer.headers["content-type"] == content_type
    schema = {**media["schema"], "components": document["components"]}
    Draft202012Validator(schema).validate(answer.json())


def test_health_needs_no_key_and_nothing_else(server: Server) -> None:
    answer = httpx.get(f"{server.url}/healthz")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(folder: Path) -> Iterator[tuple[httpx.Client, str, str]]:
    """A `stepwell serve`, a send key and a manage key."""
    db = folder / "guarded"
    send, manage = new_key(db, "send"), new_key(db, "manage")
    with serve(folder / "f", db) as server, httpx.Client(base_url=server.url) as http:
        yield http, send, manage


V1 = [
    ("GET", "/v1/events"), ("GET", "/v1/events/x"), ("GET", "/v1/events/x/runs"), ("GET", "/v1/functions"),
    ("GET", "/v1/functions/two"), ("GET", "/v1/runs"), ("GET", "/v1/runs/x"), ("DELETE", "/v1/runs/x"),
    ("POST", "/v1/runs/x/rerun"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), V1)
def test_all_of_v1_needs_a_key_that_manages(guarded: tuple[httpx.Client, str, str], method: str, path: str) -> None:
    http, send, manage = guarded

    def ask(key: str | None) -> httpx.Response:
        return http.request(method, path, headers={"authorization": f"Bearer {key}"} if key else {})

    for wrong in (None, "wrong", "sw_manage_" + "x" * 32):
        answer = ask(wrong)
        problem(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
    assert "manage" in problem(ask(send), 403)["detail"]
    assert ask(manage).status_code in (200, 404)


def test_a_key_that_manages_may_send(guarded: tuple[httpx.Client, str, str]) -> None:
    http, _, manage = guarded
    assert http.post(f"/e/{manage}", json={"name": "x"}).status_code == 200


def test_health_and_the_document_need_no_key(guarded: tuple[httpx.Client, str, str]) -> None:
    http, _, _ = guarded
    assert http.get("/healthz").status_code == 200
    assert http.get("/openapi.json").status_code == 200
