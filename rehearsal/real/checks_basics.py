"""The basics: events are accepted, functions run, waits end."""

from __future__ import annotations

import secrets
import statistics
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rehearsal.real.account import Account, Json
from rehearsal.real.checks import Failed, check

MANY = 100


def run_of(account: Account, event: Json, within_s: float = 90, wanted: str = "completed") -> Json:
    """Sends an event that starts one function, and returns the run once it has the wanted status. Raises Failed."""
    (event_id,) = account.api.send(event)

    def ended() -> Json | None:
        runs = account.api.runs_of(event_id)
        if runs and runs[0]["status"] not in ("running", wanted):
            raise Failed(f"run {runs[0]['id']} is {runs[0]['status']}: {runs[0]['error']}")
        return runs[0] if runs and runs[0]["status"] == wanted else None

    return account.until(f"the run of {event['name']} is {wanted}", ended, within_s)


def seconds(run: Json) -> float:
    """The run's duration, from the acceptance of the event to the end."""
    times = [datetime.fromisoformat(run[name]) for name in ("created_at", "ended_at")]
    return (times[1] - times[0]).total_seconds()


@check("The stack is deployed, and no update is running or was rolled back", emulated=True)
def the_stack_is_at_rest(account: Account) -> str:
    (stack,) = account.client("cloudformation").describe_stacks(StackName=account.stack)["Stacks"]
    if not stack["StackStatus"].endswith("COMPLETE") or "ROLLBACK" in stack["StackStatus"]:
        raise Failed(f"{account.stack} is {stack['StackStatus']}; see the stack's events in CloudFormation")
    who = account.client("sts").get_caller_identity()["Arn"]
    return f"{account.stack} is {stack['StackStatus']} in {account.resources.region}; you are {who}"


@check("A run of a handler, a program and a handler completes", seconds=15, usd=0.001, emulated=True)
def three_steps_complete(account: Account) -> str:
    account.use_functions()
    run = run_of(account, {"name": "smoke/three", "data": {"n": 2}})
    if run["output"] != {"total": {"total": 203}}:
        raise Failed(f"run {run['id']} has the output {run['output']}, not 203 in total")
    warm = [seconds(run_of(account, {"name": "smoke/three"})) for _ in range(5)]
    return f"cold {seconds(run):.1f} s; then {statistics.median(warm):.2f} s (median of {len(warm)})"


@check(f"{MANY} events start {MANY} runs, which all complete", seconds=20, usd=0.01)
def many_runs_complete(account: Account) -> str:
    account.use_functions()
    ids = []
    for first in range(0, MANY, 10):
        ids += account.api.send(*({"name": "smoke/three", "data": {"n": first + i}} for i in range(10)))
    runs: dict[str, Json] = {}

    def all_completed() -> bool:
        for event_id in ids:
            if event_id not in runs and (found := account.api.runs_of(event_id)):
                if found[0]["status"] == "failed":
                    raise Failed(f"run {found[0]['id']} failed: {found[0]['error']}")
                if found[0]["status"] == "completed":
                    runs[event_id] = found[0]
        return len(runs) == MANY

    account.until(f"{MANY} runs complete", all_completed, within_s=180)
    took = sorted(seconds(run) for run in runs.values())
    return f"half of them within {took[MANY // 2]:.1f} s, all within {took[-1]:.1f} s"


@check("A step with status 503 is retried a second later", seconds=5, usd=0.001, emulated=True)
def a_step_is_tried_again(account: Account) -> str:
    account.use_functions()
    run = run_of(account, {"name": "smoke/three", "data": {"flaky": True}})
    attempts = run["steps"]["price"]["attempts"]
    if [attempt["status"] for attempt in attempts] != ["failed", "completed"]:
        raise Failed(f"run {run['id']} has the attempts {attempts}, not one that failed and one that completed")
    return f"2 attempts; the run took {seconds(run):.1f} s"


@check("A chain of 40 steps completes: Lambda's loop detection does not stop it", seconds=30, usd=0.002)
def a_chain_completes(account: Account) -> str:
    account.use_functions()
    run = run_of(account, {"name": "smoke/chain"}, within_s=240)
    return f"40 steps in {seconds(run):.1f} s, {seconds(run) / 40 * 1000:.0f} ms a step"


@check("Delays, waits and timeouts end in time", seconds=35, usd=0.001, emulated=True)
def waits_end_in_time(account: Account) -> str:
    account.use_functions()
    n = secrets.token_hex(6)
    (event_id,) = account.api.send({"name": "smoke/waits", "data": {"n": n}})
    account.until("the run waits", lambda: _waiting(account, event_id), 60)
    account.api.send({"name": "smoke/answer", "data": {"n": n, "answer": 42}})

    def completed() -> Json | None:
        run = account.api.runs_of(event_id)[0]
        return run if run["status"] == "completed" else None

    run = account.until("all waits have ended", completed, 90)
    output = run["output"]
    began = run["steps"]["begin"]["output"]["at"]
    late = {name: output[name]["at"] - began - 20 for name in ("delayed", "unanswered")}
    if output["answered"] != {"answer": 42} or not all(-0.5 < seconds < 15 for seconds in late.values()):
        raise Failed(f"run {run['id']} has the output {output}; it began at {began}")
    return f"the delay of 20 s was {late['delayed']:.1f} s late, the timeout {late['unanswered']:.1f} s"


def _waiting(account: Account, event_id: str) -> bool:
    runs = account.api.runs_of(event_id)
    return bool(runs) and runs[0]["steps"]["answered"]["status"] == "waiting"


@check("An event id is accepted once, and the API finds an id with a slash", seconds=5, emulated=True)
def an_id_is_accepted_once(account: Account) -> str:
    account.use_functions()
    event_id = f"check/{secrets.token_hex(6)}"
    for _ in range(2):
        account.api.send({"name": "smoke/three", "id": event_id})
    path = event_id.replace("/", "%2F")
    account.until("the event is stored", lambda: account.api.http.get(f"/v1/events/{path}").is_success, 30)
    runs = account.until("it starts a run", lambda: account.api.call("GET", f"/v1/events/{path}/runs")["data"], 30)
    if len(runs) != 1:
        raise Failed(f"{event_id} was sent twice and started {len(runs)} runs")
    return f"one run of {event_id}"


@check("Requests without a valid key are rejected", seconds=2, emulated=True)
def wrong_keys_are_refused(account: Account) -> str:
    paths = {"/e/wrong": "POST", "/e/": "POST", "/v1/runs": "GET"}
    statuses = {
        path: account.api.http.request(method, path, json={"name": "a"}, headers={"authorization": ""}).status_code
        for path, method in paths.items()
    }
    if any(status != 401 for status in statuses.values()):
        raise Failed(f"statuses without a valid key: {statuses}; all should be 401")
    return "401 for each of " + ", ".join(paths)


@check("An event put on the bus by others starts functions, also with resources that are not ARNs", seconds=5)
def the_bus_is_open(account: Account) -> str:
    account.use_functions()
    entry = {
        "EventBusName": account.resources.bus,
        "Source": "smoke.checks",
        "DetailType": "smoke/three",
        "Detail": '{"n": 7}',
        "Resources": ["not-an-arn"],
    }
    answer = account.client("events").put_events(Entries=[entry])["Entries"][0]
    if "EventId" not in answer:
        raise Failed(f"PutEvents answers {answer}")
    run = account.until("it starts a run", lambda: account.api.runs_of(answer["EventId"]), 60)
    return f"event {answer['EventId']} started run {run[0]['id']}"


@check("An http step calls the URL, and reports the status", seconds=8, usd=0.001)
def an_http_step_calls(account: Account) -> str:
    url = f"{account.resources.api_url}/e"  # it answers 401 without a key
    definition = (
        "id: smoke-http\ntriggers: [{event: smoke/http}]\n"
        f"steps:\n  call: {{runtime: {{type: http, url: '{url}'}}, retries: {{attempts: 0}}}}\n"
    )
    with TemporaryDirectory() as folder:
        (Path(folder) / "stepwell.yaml").write_text(definition)
        account.push(Path(folder))
        run = run_of(account, {"name": "smoke/http"}, wanted="failed")
    error: dict[str, Any] = run["steps"]["call"]["error"]
    if error.get("status") != 401:
        raise Failed(f"the step's error is {error}, not one of status 401")
    return f"the step failed with {error['kind']}, status 401"


@check("A step's output on the console is in the attempt's logs", seconds=15, usd=0.001)
def logs_are_found(account: Account) -> str:
    account.use_functions()
    run = run_of(account, {"name": "smoke/three"})

    def logs() -> str | None:
        attempt = account.api.call("GET", f"/v1/runs/{run['id']}")["steps"]["price"]["attempts"][0]
        return attempt["logs"] if "computing the price" in str(attempt["logs"]) else None

    account.until("the line is in the attempt's logs", logs, 60, every_s=3)
    return f"the line of step price of run {run['id']}"


@check("A run that waits can be cancelled", seconds=5, usd=0.001, emulated=True)
def a_run_can_be_cancelled(account: Account) -> str:
    account.use_functions()
    (event_id,) = account.api.send({"name": "smoke/waits", "data": {"n": secrets.token_hex(6)}})
    account.until("the run waits", lambda: _waiting(account, event_id), 60)
    run_id = account.api.runs_of(event_id)[0]["id"]
    status = account.api.call("DELETE", f"/v1/runs/{run_id}")["status"]
    if status != "cancelled":
        raise Failed(f"run {run_id} is {status} after it was cancelled")
    return f"run {run_id} is cancelled"
