"""Events as long as a sender may make them: everything that is stored about them fits DynamoDB's keys and items."""

from __future__ import annotations

import orjson
import pytest

from stepwell.aws.queries import Queries
from stepwell.aws.resources import Resources
from stepwell.aws.table import event_key
from stepwell.core.run import RunStatus
from stepwell.testing.batches import Batches, Json, handler_step

LONG = "\U0001f600" * 255  # four bytes each
FIRST, SECOND = LONG + "1", LONG + "2"
USER = {"external_id": LONG}
BY_NAME = {"event": SECOND, "match": "async.data.n > event.data.n", "ttl": "1h"}
BY_KEY = {"event": SECOND, "match": "async.data.text == event.data.text", "ttl": "1h"}


@pytest.fixture
def batches(resources: Resources) -> Batches:
    return Batches(resources)


def deliver(batches: Batches) -> None:
    """Not until nothing is left: what cannot be stored would come again and again."""
    for _ in range(6):
        batches.route()
        batches.advance()


@pytest.mark.parametrize("wait", [BY_NAME, BY_KEY], ids=["by name", "by key"])
@pytest.mark.parametrize("comes_first", ["event", "wait"])
def test_the_longest_names_and_ids_start_and_wake_runs(batches: Batches, wait: Json, comes_first: str) -> None:
    batches.deploy({"a": handler_step(), "b": handler_step({"step": "a", "async": wait})}, FIRST, "f" * 64)
    batches.send(FIRST, {"n": 1, "text": LONG}, FIRST, USER)
    batches.route()
    if comes_first == "wait":
        batches.advance()
    batches.send(SECOND, {"n": 2, "text": LONG}, SECOND, USER)
    deliver(batches)
    ((run, _),) = batches.runs()
    assert (run.run.status, run.event_id, run.user) == (RunStatus.COMPLETED, FIRST, LONG)
    assert batches.invoked[-1]["async"]["id"] == SECOND


def test_events_and_runs_are_listed_by_the_longest_names_and_users(batches: Batches) -> None:
    batches.deploy({"a": handler_step()}, FIRST)
    batches.send(FIRST, {}, FIRST, USER)
    deliver(batches)
    queries = Queries(batches.resources, batches.entry.registry)
    assert [its.event.id for its in queries.read_events(name=FIRST).items] == [FIRST]
    assert [its.event.id for its in queries.read_events(user=LONG).items] == [FIRST]
    assert [its.event_id for its in queries.read_runs(user=LONG).items] == [FIRST]
    assert [its.event_id for its in queries.read_runs(event=FIRST).items] == [FIRST]


def test_an_event_fits_its_item_however_many_functions_it_does_not_start(batches: Batches) -> None:
    never = "event.data.n == 2" + " && true" * 240
    for number in range(80):
        batches.deploy({"a": handler_step()}, id=f"f{number}", triggers=[{"event": "go", "expression": never}])
    event_id = batches.send("go", {"n": 1, "text": "x" * 250_000})
    batches.route()
    item = batches.outside_db.get_item(TableName=batches.resources.table, Key=event_key(event_id))["Item"]
    assert len(item["b"]["B"]) + len(item["ms"]["B"]) < 330_000
    kept = orjson.loads(item["ms"]["B"])
    assert (kept[0]["function_id"], len(kept)) == ("f0", 32)
