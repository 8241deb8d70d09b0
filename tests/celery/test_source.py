"""A queue of a Celery app as a source: callers keep `.delay()` and `.get()`, and functions do the work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain, group
from celery.exceptions import NotRegistered, TaskRevokedError

from tests.celery.brokers import Redis, sqs_server
from tests.servers import Api, Json, api, dev, eventually, program, write_function

PRINT_ARGS = "python3 -c \"import json,sys; print(json.dumps(sum(json.load(sys.stdin)['event']['data']['args'])))\""


def write_source(folder: Path, broker: str, backend: str, **fields: Any) -> Path:
    (folder / "sources").mkdir(parents=True, exist_ok=True)
    definition = {"type": "celery", "broker": broker, "backend": backend, **fields}
    (folder / "sources/shop.yaml").write_text(json.dumps(definition))
    return folder


@pytest.fixture(scope="module")
def shop_app(redis: Redis) -> Iterator[Celery]:
    """The caller's side: a Celery app, as it is."""
    with Celery("shop", broker=redis.url(8), backend=redis.url(9), set_as_current=False) as app:
        yield app


@pytest.fixture(scope="module")
def server(redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = write_source(tmp_path_factory.mktemp("project"), redis.url(8), redis.url(9))
    write_function(folder / "add", "add", on="celery/shop.add", sum=program(PRINT_ARGS))
    write_function(folder / "fail", "fail", on="celery/shop.fail", a=program("echo no bread >&2; exit 3"))
    write_function(folder / "two", "two", on="celery/shop.two", a=program("echo 1"), b=program("echo 2"))
    slow = program("sleep 30")
    write_function(folder / "slow", "slow", on="celery/shop.slow", a=slow)
    with dev(folder, tmp_path_factory.mktemp("db") / "db") as started, api(started) as client:
        yield client


def call(app: Celery, task: str, *args: Any, **options: Any) -> Any:
    return app.send_task(f"shop.{task}", args, **options)


def test_delay_and_get_work_as_before(server: Api, shop_app: Celery) -> None:
    @shop_app.task(name="shop.add")
    def add(a: int, b: int) -> int:
        raise AssertionError("runs in the caller")

    assert add.delay(2, 3).get(timeout=20) == 5
    assert [result.get(timeout=20) for result in [add.delay(n, 1) for n in range(50)]] == [n + 1 for n in range(50)]


def test_the_event_has_the_tasks_name_arguments_and_id(server: Api, shop_app: Celery) -> None:
    result = call(shop_app, "add", 1, 2, kwargs={"unit": "kg"})
    assert result.get(timeout=20) == 3
    event = next(item for item in server.get("/v1/events")["data"] if item["data"].get("id") == result.id)
    assert event["name"] == "celery/shop.add"
    assert event["data"] == {"args": [1, 2], "kwargs": {"unit": "kg"}, "task": "shop.add", "id": result.id}


def test_outputs_of_several_steps_are_a_map(server: Api, shop_app: Celery) -> None:
    assert call(shop_app, "two").get(timeout=20) == {"a": 1, "b": 2}


def test_a_failed_run_raises_in_the_caller(server: Api, shop_app: Celery) -> None:
    with pytest.raises(RuntimeError, match=r"exit code 3: no bread \(exit, step a of run "):
        call(shop_app, "fail").get(timeout=20)


def test_a_task_without_a_function_raises_in_the_caller(server: Api, shop_app: Celery) -> None:
    with pytest.raises(NotRegistered, match=r"no function started for the event celery/shop.unknown"):
        call(shop_app, "unknown").get(timeout=20)


def test_a_caller_waits_while_the_function_is_paused(server: Api, shop_app: Celery) -> None:
    assert server.http.post("/v1/functions/two/pause").status_code == 200
    result = call(shop_app, "two")
    eventually(lambda: any(item["data"].get("id") == result.id for item in server.get("/v1/events")["data"]))
    assert result.state == "PENDING"
    assert server.http.post("/v1/functions/two/resume").status_code == 200
    assert result.get(timeout=20) == {"a": 1, "b": 2}


def test_a_task_that_is_too_large_for_an_event_raises_in_the_caller(server: Api, shop_app: Celery) -> None:
    with pytest.raises(RuntimeError, match="not accepted: the event would have more than 262,144 bytes"):
        call(shop_app, "add", "x" * 300_000).get(timeout=20)


def test_a_cancelled_run_is_a_revoked_task(server: Api, shop_app: Celery) -> None:
    result = call(shop_app, "slow")
    (run,) = eventually(lambda: server.get("/v1/runs", function="slow", status="running")["data"])
    assert server.http.delete(f"/v1/runs/{run['id']}").status_code == 200
    with pytest.raises(TaskRevokedError, match="was cancelled"):
        result.get(timeout=20)
    assert result.state == "REVOKED"


def test_a_caller_can_revoke_a_task(server: Api, shop_app: Celery) -> None:
    running, waiting = call(shop_app, "slow"), call(shop_app, "add", 1, 1, countdown=3600)
    eventually(lambda: server.get("/v1/runs", function="slow", status="running")["data"])

    def is_revoked(result: Any) -> bool:
        result.revoke()
        return result.state == "REVOKED"

    for result in (running, waiting):
        eventually(lambda result=result: is_revoked(result), every=0.2)
        with pytest.raises(TaskRevokedError):
            result.get(timeout=20)
    assert server.get("/v1/runs", function="slow", status="running")["data"] == []


def test_a_group_of_calls_works(server: Api, shop_app: Celery) -> None:
    signatures = [shop_app.signature("shop.add", (n, n)) for n in range(5)]
    assert group(signatures, app=shop_app)().get(timeout=20) == [0, 2, 4, 6, 8]


def test_a_chain_goes_to_the_quarantine_and_its_caller_is_told(server: Api, shop_app: Celery) -> None:
    last = chain(shop_app.signature("shop.add", (1, 2)), shop_app.signature("shop.add", (3,)), app=shop_app)()
    with pytest.raises(RuntimeError, match="the task has chain, which only Celery can call afterwards"):
        last.parent.get(timeout=20)
    quarantined = server.get("/v1/sources/shop/quarantine")["data"]
    assert any("the task has chain" in item["why"] for item in quarantined), quarantined


def test_a_task_with_an_eta_waits_for_it(server: Api, shop_app: Celery) -> None:
    later = datetime.now(UTC) + timedelta(seconds=1)
    result = call(shop_app, "add", 1, 1, eta=later)
    assert call(shop_app, "add", 2, 2).get(timeout=20) == 4  # others pass
    assert result.get(timeout=20) == 2
    event = next(item for item in server.get("/v1/events")["data"] if item["data"].get("id") == result.id)
    assert datetime.fromisoformat(event["accepted_at"]) >= later - timedelta(milliseconds=5)


def test_an_expired_task_is_revoked(server: Api, shop_app: Celery) -> None:
    result = call(shop_app, "add", 1, 1, expires=datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(TaskRevokedError, match="expired"):
        result.get(timeout=20)


def test_a_task_that_is_sent_twice_runs_once(server: Api, shop_app: Celery) -> None:
    for _ in range(2):
        result = call(shop_app, "add", 5, 5, task_id="sent-twice")
        assert result.get(timeout=20) == 10
    events = [item for item in server.get("/v1/events")["data"] if item["data"].get("id") == "sent-twice"]
    assert len(events) == 1


def test_results_that_callers_ignore_are_not_written(server: Api, redis: Redis, shop_app: Celery) -> None:
    result = call(shop_app, "add", 1, 1, ignore_result=True, task_id="ignored-one")
    call(shop_app, "add", 1, 1).get(timeout=20)
    assert shop_app.backend.client.get(f"celery-task-meta-{result.id}") is None


def test_messages_that_are_no_tasks_go_to_the_quarantine_and_block_nothing(server: Api, shop_app: Celery) -> None:
    with shop_app.connection() as connection:
        producer = connection.Producer()
        producer.publish({"hello": 1}, routing_key="celery", exchange="", serializer="json")
        for task_id, body, kind in (
            ("pickled", b"\x80\x04N.", "application/x-python-serialize"),
            ("broken", b"{", "application/json"),
        ):
            headers = {"task": "shop.add", "id": task_id}
            options = {"content_type": kind, "content_encoding": "binary", "headers": headers}
            producer.publish(body, routing_key="celery", exchange="", **options)
    assert call(shop_app, "add", 2, 2).get(timeout=20) == 4

    def reasons() -> str:
        return " ".join(item["why"] for item in server.get("/v1/sources/shop/quarantine")["data"])

    eventually(lambda: "not JSON; set task_serializer" in reasons())
    assert "it has no header `task`" in reasons()
    assert "the message is not valid JSON" in reasons()
    with pytest.raises(RuntimeError, match="not accepted"):
        shop_app.AsyncResult("pickled").get(timeout=20)


def test_a_caller_gets_the_result_although_the_server_was_killed(redis: Redis, tmp_path: Path) -> None:
    broker, backend = redis.url(10), redis.url(11)
    folder = write_source(tmp_path / "project", broker, backend)
    waits = program(f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done; echo 7", retries={"attempts": 0})
    write_function(folder / "wait", "wait", on="celery/shop.wait", a=waits)
    with Celery("shop", broker=broker, backend=backend, set_as_current=False) as app:
        with dev(folder, tmp_path / "db") as server, api(server) as client:
            results = [call(app, "wait") for _ in range(5)]
            eventually(lambda: len(runs_of(client)) == 5)
            server.kill()
        more = [call(app, "wait") for _ in range(5)]
        (tmp_path / "go").touch()
        with dev(folder, tmp_path / "db") as server, api(server) as client:
            assert [result.get(timeout=30) for result in [*results, *more]] == [7] * 10
            assert len(runs_of(client)) == 10
            assert {run["status"] for run in runs_of(client)} == {"completed"}


def runs_of(client: Api) -> list[Json]:
    found: list[Json] = client.get("/v1/runs", function="wait")["data"]
    return found


def test_callers_on_rabbitmq_get_results_by_rpc(rabbit: str, tmp_path: Path) -> None:
    folder = write_source(tmp_path / "project", "${BROKER}", "rpc://", queue="sums")
    write_function(folder / "add", "add", on="celery/shop.add", sum=program(PRINT_ARGS))
    with Celery("shop", broker=rabbit, backend="rpc://", set_as_current=False) as app:
        result = call(app, "add", 2, 3, queue="sums")  # the queue is made by the caller
        with dev(folder, tmp_path / "db", env={"BROKER": rabbit}):
            assert result.get(timeout=20) == 5
            assert call(app, "add", 3, 4, queue="sums").get(timeout=20) == 7
        app.backend.result_consumer.stop()


def test_callers_send_tasks_by_sqs(redis: Redis, tmp_path: Path) -> None:
    pytest.importorskip("pycurl", reason="kombu reads SQS with pycurl: pip install 'celery[sqs]'")
    folder = write_source(tmp_path / "project", "${BROKER}", redis.url(14), queue="sums")
    write_function(folder / "add", "add", on="celery/shop.add", sum=program(PRINT_ARGS))
    with sqs_server() as broker:
        app = Celery("shop", broker=broker, backend=redis.url(14), set_as_current=False)
        with dev(folder, tmp_path / "db", env={"BROKER": broker, "AWS_DEFAULT_REGION": "us-east-1"}):
            assert call(app, "add", 2, 3, queue="sums").get(timeout=20) == 5
        app.close()


def test_messages_that_a_killed_server_had_taken_are_not_lost(redis: Redis, tmp_path: Path) -> None:
    broker = redis.url(12)
    folder = write_source(tmp_path / "project", broker, broker)
    write_function(folder / "add", "add", on="celery/shop.add", sum=program(PRINT_ARGS))
    with Celery("shop", broker=broker, backend=broker, set_as_current=False) as app:
        with dev(folder, tmp_path / "db") as server:
            result = call(app, "add", 1, 1, countdown=2)  # it is held, and not acknowledged
            eventually(lambda: app.backend.client.llen("celery") == 0)
            server.kill()
        with dev(folder, tmp_path / "db") as server:
            assert result.get(timeout=20) == 2
            later = call(app, "add", 2, 2, countdown=60)
            eventually(lambda: app.backend.client.llen("celery") == 0)
            server.stop()
        assert app.backend.client.llen("celery") == 1  # a worker could take it now
        assert later.state == "PENDING"
