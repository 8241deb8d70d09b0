"""What workers and clients of Faktory get from the server, by the protocol itself."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import orjson
import pytest

from stepwell.local.engine.clock import Clock
from stepwell.local.faktory import connection
from tests.local.faktory.conversation import BASE, Client, Faktory, Json, faktory, job_step, run, until

JOB = {"jid": "123861239abnadsa", "jobtype": "Welcome", "args": [1, "a"]}


def push(*jobs: Json) -> str:
    return f"PUSH {orjson.dumps(jobs[0]).decode()}"


async def ack(client: Client, job: Json) -> str | None:
    return await client.ask(f"ACK {orjson.dumps({'jid': job['jid']}).decode()}")


async def fail(client: Client, job: Json, **error: object) -> str | None:
    return await client.ask(f"FAIL {orjson.dumps({'jid': job['jid'], **error}).decode()}")


async def put_result(it: Faktory, job: Json, result: object) -> int:
    answer = await it.http.post(job["custom"]["stepwell_result_url"], content=orjson.dumps(result))
    return answer.status_code


# --- jobs of workers -------------------------------------------------------------------------------------------------


def test_an_attempt_is_a_job_that_a_worker_fetches_and_completes(tmp_path: Path) -> None:
    async def main() -> None:
        async with faktory(tmp_path) as it:
            await it.deploy(a=job_step("SendMail", "mails", timeout="10m"))
            event = await it.send(data={"to": "ada"})
            worker = await it.worker()
            assert await worker.fetch("default") is None
            job = await worker.job("default", "mails")
            assert (job["jobtype"], job["queue"], job["retry"], job["reserve_for"]) == ("SendMail", "mails", 0, 600)
            assert job["args"][0]["event"]["data"] == {"to": "ada"}
            assert job["args"][0]["ctx"]["step_id"] == "a"
            assert (await it.runs(event))[0]["steps"]["a"]["status"] == "running"
            assert await ack(worker, job) == "OK"
            assert (await it.runs(event))[0]["status"] == "completed"
            assert (await it.run(event))["output"] == {"a": None}

    run(main)


def test_a_result_that_was_sent_before_the_ack_is_the_output(tmp_path: Path) -> None:
    async def main() -> None:
        async with faktory(tmp_path) as it:
            await it.deploy()
            event = await it.send()
            worker = await it.worker()
            job = await worker.job()
            assert job["custom"]["stepwell_result_url"].startswith(f"{BASE}/faktory/results/")
            assert await put_result(it, job, {"old": 1}) == 204
            assert await put_result(it, job, {"sent": 3}) == 204
            assert await ack(worker, job) == "OK"
            assert (await it.run(event))["output"] == {"a": {"sent": 3}}
            assert await put_result(it, job, {"late": 1}) == 409
            assert await it.is_empty("faktory_results")

    run(main)


def test_a_result_is_refused_if_it_is_no_json_or_too_large_or_for_no_job(tmp_path: Path) -> None:
    async def main() -> None:
        async with faktory(tmp_path) as it:
            await it.deploy()
            await it.send()
            job = await (await it.worker()).job()
            url = job["custom"]["stepwell_result_url"]
            assert (await it.http.post(url, content=b"{")).status_code == 400
            assert (await it.http.post(url, content=b'"%b"' % (b"x" * 300_000))).status_code == 400
            assert (await it.http.post(url, content=b"1" * 600_000)).status_code == 413
            assert (await it.http.get(url)).status_code == 405
            assert (await it.http.post(f"{url[:-1]}{'0' if url[-1] != '0' else '1'}", content=b"1")).status_code == 404
            assert (await it.http.post(f"{BASE}/faktory/results/x", content=b"1")).status_code == 404

    run(main)


def test_a_failure_is_retried_by_the_policy_of_the_step(tmp_path: Path) -> None:
    async def main() -> None:
        async with faktory(tmp_path) as it:
            await it.deploy(a=job_step(retries={"attempts": 1, "backoff": {"initial": "10ms"}}))
            event = await it.send()
            worker = await it.worker()
            first = await worker.job()
            assert (
                await fail(worker, first, errtype="ValueError", message="no such address", backtrace=["f", "g"]) == "OK"
            )
            second = await worker.job()
            assert second["jid"] != first["jid"]
            assert second["args"][0]["ctx"]["attempt"] == 2
            assert await fail(worker, second, errtype="undefined", message="still not", backtrace=[]) == "OK"
            (found,) = (await it.run(event, "failed"))["steps"].values()
            errors = [attempt["error"] for attempt in found["attempts"]]
            assert [(error["kind"], error["message"]) for error in errors] == [
                ("exception", "ValueError: no such address"),
                ("exception", "still not"),
            ]
            whole = (await it.http.get(f"/v1/runs/{(await it.runs(event))[0]['id']}")).json()
            assert "f\ng" in whole["steps"]["a"]["attempts"][0]["logs"]

    run(main)


def test_a_result_with_a_status_decides_whether_a_failure_is_final(tmp_path: Path) -> None:
    async def main() -> None:
        async with faktory(tmp_path) as it:
            await it.deploy(a=job_step(retries={"attempts": 5}))
            worker = await it.worker()
            for end in (fail, ack):
                event = await it.send()
                job = await worker.job()
                assert await put_result(it, job, {"status": 422, "field": "to"}) == 204
                assert await end(worker, job) == "OK"
                found = await it.run(event, "failed")
                assert found["error"]["status"] == 422
                assert found["error"]["output"] == {"status": 422, "field": "to"}
                assert len(found["steps"]["a"]["attempts"]) == 1

    run(main)


def test_args_decides_what_the_worker_gets(tmp_path: Path) -> None:
    async def main() -> None:
        async with faktory(tmp_path) as it:
            runtime = {"type": "faktory", "jobtype": "Welcome", "args": "data.args + [steps.a.body]"}
            second = {"runtime": runtime, "after": [{"step": "a"}]}
            await it.deploy(on="faktory/Welcome", a=job_step(queue="first"), b=second)
            client, worker = await it.client(), await it.worker()
            assert await client.ask(push(JOB)) == "OK"
            job = await worker.job("first")
            assert await put_result(it, job, {"body": "hello"}) == 204
            assert await ack(worker, job) == "OK"
            assert (await worker.job())["args"] == [1, "a", "hello"]

    run(main)


def test_args_without_a_value_fail_the_step_and_the_worker_waits_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with faktory(tmp_path) as it:
            runtime = {"type": "faktory", "jobtype": "Job", "args": "data.args"}
            await it.deploy(a={"runtime": runtime})
            worker = await it.worker()
            for data in ({}, {"args": "x"}):
                event = await it.send(data=data)
                assert await worker.fetch() is None
                assert (await it.run(event, "failed"))["error"]["kind"] == "arguments_failed"
            await it.send(data={"args": []})
            assert (await worker.job())["args"] == []

    run(main)


def test_fetch_takes_from_the_first_queue_that_has_a_job(tmp_path: Path) -> None:
    async def main() -> None:
        async with faktory(tmp_path) as it:
            for name in ("low", "high"):
                await it.deploy(name, name, a=job_step(queue=name))
                await it.send(name)
                await it.send(name)
            worker = await it.worker()
            order = [(await worker.job("high", "low"))["queue"] for _ in range(4)]
            assert order == ["high", "high", "low", "low"]

    run(main)


def test_each_job_goes_to_one_worker(tmp_path: Path) -> None:
    async def main() -> None:
        async with faktory(tmp_path) as it:
            await it.deploy()
            workers = [await it.worker(f"w{n}") for n in range(20)]
            fetches = [asyncio.create_task(worker.job()) for worker in workers]
            for _ in range(20):
                await it.send()
            jobs = await asyncio.gather(*fetches)
            assert len({job["jid"] for job in jobs}) == 20

    run(main)


def test_a_job_whose_worker_went_away_before_it_got_it_goes_to_another(tmp_path: Path) -> None:
    async def main() -> None:
        async with faktory(tmp_path) as it:
            await it.deploy()
            for round_ in range(8):
                gone = await it.worker(f"gone{round_}")
                gone.send("FETCH default\r\n")
                await gone.writer.drain()
                event = await it.send()
                gone.vanish()
                worker = await it.worker()
                job = await worker.fetch("default")
                if job is None:  # the first worker got it, just before it went away
                    continue
                assert job["args"][0]["event"]["id"] == event
                assert await ack(worker, job) == "OK"
                assert (await it.run(event))["steps"]["a"]["attempts"][0]["attempt"] == 1

    run(main)


def test_a_job_is_lost_when_its_reservation_is_over_and_goes_to_another_worker(tmp_path: Path) -> None:
    async def main() -> None:
        clock = Clock()
        async with faktory(tmp_path, clock=clock) as it:
            await it.deploy(a=job_step(timeout="1m"))
            event = await it.send()
            dead = await it.worker("dead")
            first = await dead.job()
            dead.vanish()
            await it.advance(59_000)
            assert (await it.runs(event))[0]["steps"]["a"]["status"] == "running"
            await it.advance(2_000)
            worker = await it.worker("live")
            second = await worker.job()
            assert second["args"][0]["ctx"]["attempt"] == 2
            assert await ack(worker, first) == "OK"  # too late: it changes nothing
            assert (await it.runs(event))[0]["status"] == "running"
            assert await ack(worker, second) == "OK"
            assert [attempt["status"] for attempt in (await it.run(event))["steps"]["a"]["attempts"]] == [
                "lost",
                "completed",
            ]

    run(main)


def test_jobs_of_a_cancelled_run_are_not_handed_out_and_their_ends_change_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with faktory(tmp_path) as it:
            await it.deploy(a=job_step(queue="a"), b=job_step(queue="b"))
            event = await it.send()
            worker = await it.worker()
            job = await worker.job("a")
            (found,) = await it.runs(event)
            assert (await it.http.delete(f"/v1/runs/{found['id']}")).status_code == 200
            assert await worker.fetch("b") is None
            assert await ack(worker, job) == "OK"
            assert (await it.runs(event))[0]["status"] == "cancelled"

    run(main)


def test_an_id_that_the_server_has_not_made_ends_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with faktory(tmp_path) as it:
            await it.deploy()
            event = await it.send()
            worker = await it.worker()
            job = await worker.job()
            run_id, step, attempt, signature = job["jid"].split(".")
            for jid in ("x", f"{run_id}.{step}.2.{signature}", f"{run_id}.{step}.{attempt}.{'0' * 32}"):
                assert str(await ack(worker, {"jid": jid})).startswith("-ERR there is no such job")
            assert (await it.runs(event))[0]["status"] == "running"

    run(main)


def test_a_job_goes_on_over_a_restart_of_the_server(tmp_path: Path) -> None:
    async def main() -> None:
        async with faktory(tmp_path) as it:
            await it.deploy()
            event = await it.send()
            job = await (await it.worker()).job()
            assert await put_result(it, job, {"n": 1}) == 204
        async with faktory(tmp_path) as it:
            worker = await it.worker()
            assert await worker.fetch() is None
            assert await ack(worker, job) == "OK"
            found = await it.run(event)
            assert found["output"] == {"a": {"n": 1}}
            assert [attempt["attempt"] for attempt in found["steps"]["a"]["attempts"]] == [1]

    run(main)


def test_a_job_that_no_worker_got_does_not_wait_for_the_end_of_its_reservation(tmp_path: Path) -> None:
    """It was claimed for a worker that went away. It is queued again soon, so it survives also a kill of the server."""

    async def main() -> None:
        async with faktory(tmp_path) as it:
            await it.deploy()
            event = await claimed_for_nobody(it)
            await until(lambda: it.is_step(event, "queued"))
            job = await (worker := await it.worker()).job()
            assert job["args"][0]["ctx"]["attempt"] == 2
            assert await ack(worker, job) == "OK"
            assert (await it.run(event))["status"] == "completed"

    run(main)


def test_a_job_that_no_worker_got_before_the_server_stopped_is_handed_out_by_the_next(tmp_path: Path) -> None:
    async def main() -> None:
        async with faktory(tmp_path) as it:
            await it.deploy()
            event = await claimed_for_nobody(it)
        async with faktory(tmp_path) as it:
            worker = await it.worker()
            job = await worker.job()
            assert job["args"][0]["event"]["id"] == event
            assert await ack(worker, job) == "OK"
            assert (await it.run(event))["status"] == "completed"

    run(main)


async def claimed_for_nobody(it: Faktory) -> str:
    """Sends an event, whose job is claimed for a worker that is not there any more. Returns the event's id."""
    queues = it.platform.executor.worker_queues
    asked = queues.ask(["default"])
    event = await it.send()
    queues.give_back("default", await asked)
    return event


def test_the_result_of_an_attempt_that_ended_while_no_server_ran_is_removed(tmp_path: Path) -> None:
    async def main() -> None:
        async with faktory(tmp_path) as it:
            await it.deploy(a=job_step(timeout="1m"))
            event = await it.send()
            worker = await it.worker()
            job = await worker.job()
            assert await put_result(it, job, 1) == 204
            (found,) = await it.runs(event)
            await it.http.delete(f"/v1/runs/{found['id']}")
        async with faktory(tmp_path) as it:
            await until(lambda: it.is_empty("faktory_results"))

    run(main)


# --- paused queues ---------------------------------------------------------------------------------------------------


def test_a_paused_queue_gives_no_jobs_also_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        async with faktory(tmp_path) as it:
            await it.deploy()
            await it.send()
            worker = await it.worker()
            assert await worker.ask("QUEUE PAUSE default") == "OK"
            assert await worker.fetch() is None
        async with faktory(tmp_path) as it:
            worker = await it.worker()
            assert await worker.fetch() is None
            assert await worker.ask("QUEUE RESUME *") == "OK"
            assert await worker.job()

    run(main)


# --- heartbeats ------------------------------------------------------------------------------------------------------


def test_workers_are_told_to_become_quiet_and_to_terminate(tmp_path: Path) -> None:
    async def main() -> None:
        async with faktory(tmp_path) as it:
            await it.deploy()
            worker = await it.worker("w1")
            beat = 'BEAT {"wid":"w1","rss_kb":52000}'
            assert await worker.ask(beat) == "OK"
            for order in ("quiet", "terminate"):
                answer = await it.http.post(f"/v1/workers/w1/{order}")
                assert answer.status_code == 200, answer.text
                assert await worker.ask(beat) == f'{{"state":"{order}"}}'
            await it.send()
            assert await worker.fetch() is None
            assert (await it.http.post("/v1/workers/w2/quiet")).status_code == 404

    run(main)


# --- jobs of clients -------------------------------------------------------------------------------------------------


def test_a_pushed_job_is_an_event(tmp_path: Path) -> None:
    async def main() -> None:
        async with faktory(tmp_path) as it:
            await it.deploy(on="faktory/Welcome")
            client = await it.client()
            assert await client.ask(push({**JOB, "custom": {"lang": "en"}, "priority": 5})) == "OK"
            event = (await it.http.get(f"/v1/events/faktory:{JOB['jid']}")).json()
            assert event["name"] == "faktory/Welcome"
            assert event["data"] == {**JOB, "queue": "default", "custom": {"lang": "en"}, "priority": 5}
            assert len(await it.runs(event["id"])) == 1
            assert await client.ask(push(JOB)) == "OK"
            assert len(await it.runs(event["id"])) == 1

    run(main)


def test_the_jobs_of_pushb_are_accepted_or_refused_one_by_one(tmp_path: Path) -> None:
    async def main() -> None:
        async with faktory(tmp_path) as it:
            client = await it.client()
            jobs = [{**JOB, "jid": "good-job-1"}, {"jid": "bad-job-1", "jobtype": "X"}, 7]
            refused = orjson.loads(await client.ask(f"PUSHB {orjson.dumps(jobs).decode()}") or "")
            assert refused == {"bad-job-1": "a job needs `args`, an array", "job 3": "a job must be a JSON object"}
            assert (await it.http.get("/v1/events/faktory:good-job-1")).status_code == 200
            assert await client.ask("PUSHB []") == "{}"

    run(main)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"jid": ""}, "needs `jid`"),
        ({"jobtype": None}, "needs `jobtype`"),
        ({"jobtype": "x" * 300}, "at most 256 characters"),
        ({"args": {}}, "needs `args`"),
        ({"args": [12345678901234567890123]}, "does not fit into 64 bits"),
        ({"args": ["x" * 300_000]}, "more than 262,144"),
        ({"queue": 7}, "`queue` of a job must be a text"),
        ({"custom": []}, "`custom` of a job must be a JSON object"),
        ({"custom": {"unique_for": 10}}, "Enterprise"),
        ({"custom": {"bid": "b-1"}}, "Enterprise"),
        ({"at": "tomorrow"}, "must be a time"),
        ({"at": "2027-01-31T10:00:00"}, "must be a time"),
    ],
)
def test_a_job_that_cannot_be_an_event_is_refused_with_the_reason(change: Json, why: str, tmp_path: Path) -> None:
    async def main() -> None:
        import json

        async with faktory(tmp_path) as it:
            reply = await (await it.client()).ask(f"PUSH {json.dumps({**JOB, **change})}")
            assert str(reply).startswith("-ERR")
            assert why in str(reply)

    run(main)


def test_a_job_for_later_becomes_an_event_when_it_is_due_also_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        clock = Clock()
        async with faktory(tmp_path, clock=clock) as it:
            client = await it.client()
            at = "2090-01-31T15:30:17.111222333Z"
            assert await client.ask(push({**JOB, "at": at})) == "OK"
            assert await client.ask(push({**JOB, "at": at})) == "OK"
            past = {**JOB, "jid": "past-job-1", "at": "2017-12-20T15:30:17.111222333Z"}
            assert await client.ask(push(past)) == "OK"
            assert (await it.http.get("/v1/events/faktory:past-job-1")).status_code == 200
            assert (await it.http.get(f"/v1/events/faktory:{JOB['jid']}")).status_code == 404
        clock = Clock()
        clock.advance(70 * 366 * 86_400_000)
        async with faktory(tmp_path, clock=clock) as it:

            async def accepted() -> bool:
                return (await it.http.get(f"/v1/events/faktory:{JOB['jid']}")).status_code == 200

            await until(accepted)
            event = (await it.http.get(f"/v1/events/faktory:{JOB['jid']}")).json()
            assert event["ts"] == 3789559817111
            await until(lambda: it.is_empty("faktory_scheduled"))

    run(main)


def test_info_has_the_fields_that_clients_of_faktory_read(tmp_path: Path) -> None:
    async def main() -> None:
        async with faktory(tmp_path) as it:
            await it.deploy()
            await it.send()
            await it.send()
            worker = await it.worker()
            await ack(worker, await worker.job())
            info = orjson.loads(await worker.ask("INFO") or "")
            assert info["faktory"]["queues"] == {"default": 1}
            assert info["faktory"]["total_processed"] == 1
            assert info["server"]["connections"] == 1

    run(main)


# --- the connection --------------------------------------------------------------------------------------------------


def test_a_password_keeps_others_out(tmp_path: Path) -> None:
    async def main() -> None:
        async with faktory(tmp_path, password="secret") as it:
            client = await it.client(password="secret")
            assert await client.ask("INFO")
            stranger = await it.connect()
            await stranger.greeting()
            assert "password" in str(await stranger.ask('HELLO {"v":2}'))
            assert await stranger.is_closed()

    run(main)


def test_commands_that_are_sent_together_are_answered_in_order(tmp_path: Path) -> None:
    async def main() -> None:
        async with faktory(tmp_path) as it:
            client = await it.client()
            client.send("".join(f"{push({**JOB, 'jid': f'together-{n}'})}\r\n" for n in range(200)) + "INFO\r\n")
            assert [await client.reply() for _ in range(200)] == ["OK"] * 200
            assert "command_count" in str(await client.reply())
            await client.end()

    run(main)


def test_slow_clients_are_closed_and_idle_ones_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HELLO_S", 0.3)
    monkeypatch.setattr(connection, "COMMAND_S", 0.3)

    async def main() -> None:
        async with faktory(tmp_path) as it:
            idle, half, silent = await it.client(), await it.client(), await it.connect()
            half.send('PUSH {"jid"')
            assert await silent.is_closed()
            assert await half.is_closed()
            assert await idle.ask("INFO")

    run(main)


def test_hostile_clients_do_not_disturb_others(tmp_path: Path) -> None:
    async def main() -> None:
        async with faktory(tmp_path) as it:
            await it.deploy()
            hostile = [await it.connect() for _ in range(300)]
            for n, client in enumerate(hostile):
                client.send((b"\x00\xff" * 5000, b"GET / HTTP/1.1\r\n\r\n", b"x" * 100_000, b"HELLO {}\r\n")[n % 4])
            deaf = await it.worker("deaf")  # sends commands, and reads no replies
            deaf.send(b"INFO\r\n" * 20_000)
            await it.send()
            worker = await it.worker()
            assert await ack(worker, await worker.job()) == "OK"
            for client in hostile:
                assert await client.is_closed()
            deaf.vanish()

    run(main)


def test_too_many_connections_close_those_that_are_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepwell.local.http.connection_limit._MOST", 50)

    async def main() -> None:
        async with faktory(tmp_path) as it:
            silent = [await it.connect() for _ in range(200)]
            worker = await it.worker()
            assert await worker.ask('BEAT {"wid":"worker-1"}') == "OK"
            assert await silent[0].is_closed()

    run(main)


def test_the_port_is_free_again_after_the_server(tmp_path: Path) -> None:
    async def main() -> None:
        async with faktory(tmp_path) as it:
            port = it.port
            await it.client()
        with socket.socket() as again:
            again.bind(("127.0.0.1", port))

    run(main)
