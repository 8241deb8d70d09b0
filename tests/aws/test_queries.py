"""Lists, filters, pages, and details of runs that the real engine created."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import time_machine

from stepwell.api.views.runs import run_view
from stepwell.aws.api import queries as module
from stepwell.aws.api.queries import Queries
from stepwell.aws.clients import client
from stepwell.aws.resources import Resources
from stepwell.aws.table.list_layout import Listed
from stepwell.aws.table.lists import Lists
from stepwell.aws.table.positions import ms_of
from stepwell.aws.table.runs import stored_run
from stepwell.core.run.run import RunStatus
from stepwell.reader import EventDetail, Page, RunDetail
from stepwell.testing.batches import Batches, Json, handler_step


@pytest.fixture(autouse=True)
def clock() -> Iterator[Any]:
    with time_machine.travel("2026-11-15T12:00:00Z", tick=False) as clock:
        yield clock


@pytest.fixture
def batches(resources: Resources) -> Batches:
    """Each attempt fails if the event says so."""
    batches = Batches(resources)
    batches.answer = lambda ctx: {"status": 404} if ctx["run_id"] in failing(batches) else {"ok": ctx["step_id"]}
    return batches


def failing(batches: Batches) -> set[str]:
    return {call["ctx"]["run_id"] for call in batches.invoked if call["event"]["data"].get("fail")}


@pytest.fixture
def reader(batches: Batches) -> Queries:
    return Queries(batches.resources, batches.session.registry)


def event_ids(page: Page[EventDetail]) -> list[str]:
    return [detail.event.id for detail in page.items]


def of_events(page: Page[RunDetail]) -> list[str]:
    return [detail.event_id for detail in page.items]


def all_pages(read: Any, **query: Any) -> list[str]:
    """The ids of all pages. Each page but the last has a `next`, and none exceeds the limit."""
    found: list[str] = []
    before = None
    while True:
        page = read(before=before, **query)
        assert len(page.items) <= query["limit"]
        found += [getattr(item, "event_id", None) or item.event.id for item in page.items]
        if page.next is None:
            return found
        before = page.next


# --- events ----------------------------------------------------------------------------------------------------------


def test_events_are_listed_newest_first_by_name_and_user(batches: Batches, reader: Queries) -> None:
    sent = [
        batches.send(name, user=user)
        for name, user in (("a", {"id": 1}), ("b", {"id": 1}), ("a", {"id": 2}), ("c", None))
    ]
    batches.drain(batch=2)
    assert set(event_ids(reader.read_events())) == set(sent)
    assert set(event_ids(reader.read_events(name="a"))) == {sent[0], sent[2]}
    assert set(event_ids(reader.read_events(user="1"))) == {sent[0], sent[1]}
    assert event_ids(reader.read_events(user="1", name="b")) == [sent[1]]
    assert reader.read_events(name="nothing") == Page([], None)


def test_an_event_says_when_it_was_accepted_and_what_it_did_not_start(batches: Batches, reader: Queries) -> None:
    batches.deploy({"a": handler_step()}, triggers=[{"event": "go", "expression": "data.n > 1"}])
    event_id = batches.send("go", {"n": 1})
    batches.drain()
    detail = reader.read_event(event_id)
    assert detail is not None
    assert detail.event.data == {"n": 1}
    assert detail.accepted_at == time.time_ns() // 1_000_000 == ms_of(detail.event.position)
    assert b'"f"' in (detail.misses or b"")
    assert event_ids(reader.read_events()) == [event_id]
    assert reader.read_event("unknown") is None


def test_pages_of_events_follow_each_other(batches: Batches, reader: Queries) -> None:
    sent = []
    for number in range(23):
        sent.append(batches.send("even" if number % 2 == 0 else "odd", user={"id": number % 3}))
        batches.drain()
    assert all_pages(reader.read_events, limit=5) == sent[::-1]
    assert all_pages(reader.read_events, limit=4, name="odd") == sent[1::2][::-1]
    assert all_pages(reader.read_events, limit=2, name="even", user="0") == sent[0::6][::-1]


def test_a_page_ends_early_where_its_events_are_large(batches: Batches, reader: Queries) -> None:
    sent = []
    for number in range(12):
        sent.append(batches.send(f"e{number}", {"text": "x" * 250_000}))
        batches.drain()
    first = reader.read_events(limit=50)
    assert 0 < len(first.items) < 12
    assert all_pages(reader.read_events, limit=50) == sent[::-1]


def test_a_filter_that_refuses_almost_everything_reads_a_bounded_number_of_items(
    batches: Batches, reader: Queries, requests: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST", 100)
    ids = []
    for start in range(0, 240, 10):
        ids += [batches.send("rare" if number == 3 else "often", user={"id": 1}) for number in range(start, start + 10)]
        batches.drain()
    requests.clear()
    page = reader.read_events(name="rare", user="1", limit=10)
    assert page.items == []
    assert page.next is not None
    assert requests.count("BatchGetItem") <= 3 + 1  # and a lookup of the user
    assert all_pages(reader.read_events, name="rare", user="1", limit=10) == [ids[3]]


# --- runs ------------------------------------------------------------------------------------------------------------


def test_runs_are_listed_by_function_user_event_and_status(batches: Batches, reader: Queries) -> None:
    batches.deploy({"a": handler_step()}, id="f")
    batches.deploy({"a": handler_step()}, id="g")
    good = batches.send("go", user={"id": 1})
    batches.drain()
    bad = batches.send("go", {"fail": True}, user={"id": 2})
    batches.drain()
    read = reader.read_runs
    assert of_events(read()) == [bad, bad, good, good]
    assert [run.plan.function_id for run in read(function="g").items] == ["g", "g"]
    assert of_events(read(user="1")) == [good, good]
    assert of_events(read(user="2", function="f")) == [bad]
    assert of_events(read(event=bad)) == [bad, bad]
    assert of_events(read(event=bad, function="f", status=RunStatus.FAILED)) == [bad]
    assert read(event=bad, status=RunStatus.COMPLETED).items == []
    assert of_events(read(status=RunStatus.FAILED)) == [bad, bad]
    assert of_events(read(status=RunStatus.COMPLETED)) == [good, good]
    assert of_events(read(status=RunStatus.COMPLETED, function="f")) == [good]
    assert of_events(read(status=RunStatus.FAILED, function="f", user="1")) == []
    assert of_events(read(status=RunStatus.RUNNING)) == []


def test_running_and_cancelled_runs_are_found_by_the_index(batches: Batches, reader: Queries, clock: Any) -> None:
    batches.deploy({"a": handler_step({"step": "$trigger", "wait": "90d"})})
    event_id = batches.send()
    batches.drain()
    (run,) = reader.read_runs(status=RunStatus.RUNNING).items
    assert run.event_id == event_id
    clock.shift(40 * 86_400)  # longer than lists are kept
    assert of_events(reader.read_runs(status=RunStatus.RUNNING)) == [event_id]
    batches.control.cancel(run.run.id)
    assert of_events(reader.read_runs(status=RunStatus.RUNNING)) == []
    assert of_events(reader.read_runs(status=RunStatus.CANCELLED)) == [event_id]


@pytest.mark.parametrize(
    "query", [{}, {"function": "f"}, {"status": RunStatus.FAILED}, {"status": RunStatus.COMPLETED}]
)
def test_pages_of_runs_follow_each_other(batches: Batches, reader: Queries, query: Json) -> None:
    batches.deploy({"a": handler_step()})
    sent = []
    for number in range(16):
        sent.append(batches.send("go", {"fail": number % 2 == 1}))
        batches.drain()
    wanted = {RunStatus.FAILED: sent[1::2], RunStatus.COMPLETED: sent[0::2]}.get(
        query.get("status", RunStatus.RUNNING), sent
    )
    assert all_pages(reader.read_runs, limit=3, **query) == wanted[::-1]
    assert all_pages(reader.read_runs, limit=8, **query) == wanted[::-1]


def test_reruns_stand_beside_the_runs_of_an_event(batches: Batches, reader: Queries) -> None:
    batches.deploy({"a": handler_step()})
    event_id = batches.send()
    batches.drain()
    (run,) = reader.read_runs(event=event_id).items
    new_id = batches.control.rerun(run.run.id)
    batches.drain()
    newest, oldest = reader.read_runs(event=event_id).items
    assert (newest.run.id, newest.rerun_of, oldest.run.id) == (new_id, run.run.id, run.run.id)
    assert [run_detail.run.id for run_detail in reader.read_runs(event=event_id, limit=1).items] == [new_id]
    assert all_pages(reader.read_runs, event=event_id, limit=1) == [event_id, event_id]


def test_a_run_shows_its_results_however_long_they_are(batches: Batches, reader: Queries) -> None:
    batches.deploy({"a": handler_step(), "b": handler_step("a"), "c": handler_step("b")})
    batches.answer = lambda ctx: {"text": ctx["step_id"] * 100_000}
    event_id = batches.send()
    batches.drain()
    (listed,) = reader.read_runs(event=event_id).items
    detail = reader.read_run(listed.run.id)
    assert detail is not None
    for view in (run_view(listed), run_view(detail)):
        assert view["status"] == "completed"
        assert view["output"] == {"c": {"text": "c" * 100_000}}
        assert [len(step["output"]["text"]) for step in view["steps"].values()] == [100_000] * 3
    assert reader.read_run("unknown") is None


def test_a_list_of_runs_costs_one_more_request_than_the_list_itself(
    batches: Batches, reader: Queries, requests: list[str]
) -> None:
    batches.deploy({"a": handler_step(), "b": handler_step("a")})
    for _ in range(20):
        batches.send()
    batches.drain()
    reader.read_runs(limit=1)  # the start of lists, and the version of the function, are cached
    requests.clear()
    assert len(reader.read_runs(function="f").items) == 20
    assert Counter(requests) == {"Query": 8, "BatchGetItem": 1}


def test_a_wait_says_why_the_newest_event_of_its_name_is_no_match(batches: Batches, reader: Queries) -> None:
    wait = {"event": "paid", "match": "async.data.order == event.data.order", "ttl": "1h"}
    batches.deploy({"a": handler_step({"step": "$trigger", "async": wait})})
    event_id = batches.send("go", {"order": 1})
    batches.drain()
    batches.send("paid", {"order": 2})
    batches.drain()
    (run,) = reader.read_runs(event=event_id).items
    detail = reader.read_run(run.run.id)
    assert detail is not None
    assert detail.mismatches == {}  # the expression was false
    batches.send("paid", {})
    batches.drain()
    detail = reader.read_run(run.run.id)
    assert detail is not None
    assert "order" in detail.mismatches[0]


def test_the_log_of_an_attempt_is_read_with_its_run(batches: Batches, reader: Queries) -> None:
    batches.deploy({"a": handler_step()})
    event_id = batches.send()
    batches.drain()
    (run,) = reader.read_runs(event=event_id).items
    detail = reader.read_run(run.run.id)
    assert detail is not None
    assert detail.logs == {(0, 1): b""}  # it does not exist yet
    item = client("dynamodb").get_item(TableName="stepwell", Key={"pk": {"S": f"R#{run.run.id}"}, "sk": {"S": "r"}})[
        "Item"
    ]
    request_id = stored_run(item).attempts[0].request_id
    put_log("/aws/lambda/f-a", [f"START RequestId: {request_id} Version: 1", "hello", f"END RequestId: {request_id}"])
    detail = reader.read_run(run.run.id)
    assert detail is not None
    assert detail.logs == {(0, 1): b"hello\n"}


def put_log(group: str, lines: list[str]) -> None:
    logs = client("logs")
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="s")
    now = time.time_ns() // 1_000_000
    events = [{"timestamp": now, "message": f"{line}\n"} for line in lines]
    logs.put_log_events(logGroupName=group, logStreamName="s", logEvents=events)


def test_two_entries_with_one_position_stand_on_one_page(batches: Batches, reader: Queries) -> None:
    now = time.time_ns() // 1_000_000
    sent = [batches.send() for _ in range(3)]
    batches.drain()
    positions = {event_detail.event.id: event_detail.event.position for event_detail in reader.read_events().items}
    twin = Listed(positions[sent[1]], sent[0])  # as if another Lambda had created this position
    Lists(batches.resources).add([twin], [], now)
    pages = []
    before = None
    while True:
        page = reader.read_events(limit=1, before=before)
        pages.append(event_ids(page))
        before = page.next
        if before is None:
            break
    assert sorted(map(len, pages)) == [1, 1, 2]


# --- functions -------------------------------------------------------------------------------------------------------


def test_functions_are_listed_with_their_versions(batches: Batches, reader: Queries) -> None:
    batches.deploy({"a": handler_step()}, id="g")
    batches.deploy({"a": handler_step()}, id="f")
    batches.deploy({"b": handler_step()}, id="f")
    f, g = reader.read_functions()
    now = time.time_ns() // 1_000_000
    assert (f.id, f.version, g.id, g.version) == ("f", 2, "g", 1)
    assert [(version.number, version.created_at) for version in f.versions] == [(1, now), (2, now)]
    assert b'"b"' in f.definition
    assert reader.read_function("f") == f
    assert reader.read_function("unknown") is None


def test_a_function_that_is_not_live_any_more_shows_its_newest_version(batches: Batches, reader: Queries) -> None:
    batches.deploy({"a": handler_step()})
    batches.session.releases.retire(["f"])
    assert reader.read_functions() == []
    function = reader.read_function("f")
    assert function is not None
    assert function.version is None
    assert [version.number for version in function.versions] == [1]
