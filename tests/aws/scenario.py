"""A scenario of user actions and failures in which each Lambda makes every kind of request that it can make.

If a Lambda begins to make a new kind of request, provoke the request here. Otherwise the permission for it counts as
unused.
"""

from __future__ import annotations

import hmac
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import boto3
import pytest

from infra.settings import Settings
from stepwell.aws.deploy.roles import trust
from stepwell.core.definition.definition import parse_definition
from stepwell.testing.platform import Refused
from tests.aws.permissions import Json
from tests.aws.recorded import RecordedStepwell, write

MINE = "arn:aws:lambda:us-east-1:123456789012:function:mine"
HANDLER = """
def echo(event, context):
    print("called")
    return event["event"]["data"].get("answer")

def fail(event, context):
    raise RuntimeError("no")
"""
SIMPLE: Json = {"path": "file://steps", "runtime": {"type": "lambda", "handler": "app.echo"}, "timeout": "1m"}
STARTED_BY: list[Json] = [
    {"step": "$trigger", "if": "event.name == 'now'"},  # by route
    {"step": "$trigger", "if": "event.name == 'later'", "wait": "5m"},  # by advance; by tick if the timer is lost
    {"step": "first"},  # by advance
]


def step(runtime: Json, **fields: Any) -> Json:
    return {"runtime": runtime, "timeout": "1m", "retries": {"attempts": 0}, "after": STARTED_BY, **fields}


def every_kind(site: str, settings: Settings) -> Json:
    """A step of each runtime, started by different Lambdas because of different events."""
    program = {"type": "lambda", "command": ["sh", "main.sh"]}
    web = {"type": "http", "url": site, "headers": {"authorization": "${TOKEN}", "x-name": "${NAME}"}}
    steps = {
        "first": {**SIMPLE, "after": [{"step": "$trigger", "if": "event.name == 'then'"}]},
        "program": step(program, path="file://program", secrets=["TOKEN"]),
        "web": step(web, path="file://program", secrets=["TOKEN"]),
    }
    if settings.step_lambdas:
        steps["mine"] = step({"type": "lambda", "arn": MINE})
    if settings.has_containers:
        box = {"type": "docker", "image": "127.0.0.1:1/box:1", "entrypoint": ["/bin/sh", "-c", "echo '{}'"]}
        steps["box"] = step(box)
    triggers = [{"event": name} for name in ("now", "later", "then")]
    return {"id": "every", "triggers": triggers, "concurrency": {"limit": 100}, "steps": steps}


def one_step(id: str, on: str | Json, **fields: Any) -> Json:
    return {
        "id": id,
        "triggers": [{"event": on} if isinstance(on, str) else on],
        "steps": {"a": {**SIMPLE, **fields}},
    }


def wide() -> Json:
    """So many steps that outcomes are stored before they are folded; but only one of them runs."""
    never = {**SIMPLE, "after": [{"step": "a", "if": "false"}]}
    return {
        "id": "wide",
        "triggers": [{"event": "wide"}],
        "steps": {"a": SIMPLE, **{f"s{n}": never for n in range(40)}},
    }


def pause(ttl: str, match: str | None = None) -> list[Json]:
    waits = {"event": "paid", "ttl": ttl, **({"match": match} if match else {})}
    return [{"step": "$trigger", "async": waits}]


class Scenario:
    """Runs the whole scenario once, in an empty account."""

    def __init__(self, stepwell: RecordedStepwell, settings: Settings, site: str, folder: Path) -> None:
        self._stepwell, self._settings, self._site, self._folder = stepwell, settings, site, folder

    def play(self) -> None:
        self._schedules()
        self._deploy()
        self._every_kind_of_step()
        self._waits()
        self._failures_and_retries()
        self._what_cannot_be_read()
        self._what_is_lost()
        self._requests()
        self._stacks()
        self._routings()
        self._rolled_back()
        self._approvals()
        self._signing_keys()  # last, because they are deleted with the stack

    def _deploy(self) -> None:
        stepwell = self._stepwell
        stepwell.secret("TOKEN", "s3cret")
        if self._settings.step_lambdas:
            _make_my_lambda()
        files = {"steps__app_py": HANDLER, "program__main_sh": "echo '{}'\n", "program___env": "NAME=value\n"}
        definitions = [
            every_kind(self._site, self._settings),
            one_step("keyed", "order", after=pause("1h", "async.data.order == event.data.order")),
            one_step("named", "order", after=pause("5m")),
            wide(),
            {
                **one_step("idle", "idle", after=[{"step": "$trigger", "if": "event.data.n == 1"}]),
                "idempotency": "event.id",
                "rate_limit": {"limit": 100, "period": "1h", "key": "user"},
                "singleton": {"mode": "cancel", "key": "user"},
            },
            one_step(
                "broken",
                "break",
                runtime={"type": "lambda", "handler": "app.fail"},
                retries={"attempts": 2, "backoff": {"initial": "10s", "factor": 120, "jitter": 0}},
            ),
        ]
        for definition in definitions:
            stepwell.deploy(write(self._folder / definition["id"], definition, **files))

    def _every_kind_of_step(self) -> None:
        stepwell = self._stepwell
        self._completed(stepwell.send("then"))
        stepwell.rerun(self._completed(stepwell.send("now")))
        self._finish()
        later = stepwell.send("later")
        stepwell.travel("6m")
        stepwell.rerun(self._completed(later))
        asked = {"replay": "r1", "events": [{"id": later}, {"event": {"name": "now", "id": "abroad"}}]}
        stepwell.api("POST", "/v1/functions/every/replay", asked)
        self._finish()
        self._completed(stepwell.send("wide"))

    def _waits(self) -> None:
        stepwell = self._stepwell
        stepwell.send("order", {"order": 1, "answer": "x" * 5000})
        stepwell.send("paid", {"order": 1})
        stepwell.settle()
        stepwell.send("order", {"order": 2})
        stepwell.travel("2h")

    def _failures_and_retries(self) -> None:
        stepwell = self._stepwell
        stepwell.host.expire_next = 1
        event = stepwell.send("break")
        stepwell.travel("1h")
        (run,) = stepwell.runs(event)
        assert run["status"] == "failed"
        for n in (0, 1):
            stepwell.send("idle", {"n": n})
        stepwell.settle()

    def _what_cannot_be_read(self) -> None:
        """A message that fails repeatedly in both queues."""
        resources = self._stepwell.resources
        for url in (resources.events_queue, resources.outcomes_queue):
            boto3.client("sqs").send_message(QueueUrl=url, MessageBody="no JSON")
        self._stepwell.settle()

    def _what_is_lost(self) -> None:
        """`tick` finds lost timers, attempts and containers."""
        stepwell = self._stepwell
        stepwell.send("later")
        stepwell.send("order", {"order": 3})
        stepwell.settle()
        stepwell.lose_messages()
        stepwell.sweep_after(minutes=7)
        stepwell.settle()
        stepwell.recorder.tasks.clear()  # these containers never report
        stepwell.sweep_after(minutes=3)
        self._finish()

    def _requests(self) -> None:
        stepwell = self._stepwell
        stepwell.send_raw(b'[{"name": "one"}, {"name": "two", "user": {"email": "a@b.c"}}]')
        for body in (b'{"name": ""}', b'{"name": "big", "data": "%b"}' % (b"x" * 300_000)):
            with pytest.raises(Refused):
                stepwell.send_raw(body)
        run = stepwell.run_of(stepwell.send("now"))
        stepwell.get("/v1/runs?status=running")
        stepwell.get("/v1/runs?user=a@b.c")
        stepwell.get("/v1/events?name=one")
        stepwell.get("/v1/functions")
        stepwell.get("/v1/functions/keyed")
        stepwell.cancel(run)
        self._webhooks()
        self._users()
        waits = stepwell.run_of(stepwell.send("later"))
        stepwell.cancel(waits)
        self._finish()
        if self._settings.has_containers:
            event = stepwell.send("now")
            stepwell.end_task_without_a_word()
            (failed,) = stepwell.runs(event)
            assert failed["steps"]["box"]["error"]["kind"] == "crash"

    def _webhooks(self) -> None:
        stepwell = self._stepwell
        rule = {"event": "hooked", "verify": {"type": "hmac", "secret": "TOKEN", "header": "x-signature"}}
        stepwell.api("PUT", "/v1/webhooks/shop", rule)
        stepwell.get("/v1/webhooks")
        signature = hmac.new(b"s3cret", b"{}", "sha256").hexdigest()
        assert stepwell.http("POST", "/webhooks/shop", b"{}", {"x-signature": signature}).status == 200
        stepwell.api("DELETE", "/v1/webhooks/shop")

    def _users(self) -> None:
        stepwell = self._stepwell
        stepwell.send("order", {"order": 4}, user={"id": "ada", "email": "ada@b.c", "plan": "pro"})
        stepwell.send("idle", {"n": 0}, user={"email": "ada@b.c"})
        for path in ("/v1/users", "/v1/users/ada@b.c", "/v1/users/ada/timeline"):
            stepwell.get(path)
        assert stepwell.api("DELETE", "/v1/users/ada")["erased"]["events"] == 2

    def _schedules(self) -> None:
        cron = one_step("minutely", {"cron": "* * * * *"})
        self._stepwell.deploy(write(self._folder / "minutely", cron, steps__app_py=HANDLER))
        self._stepwell.travel("3m")
        self._stepwell.api("DELETE", "/v1/functions/minutely")

    def _routings(self) -> None:
        """A function is paused with an event, resumed, has a guarded canary, and is deleted with open runs."""
        stepwell = self._stepwell
        cron: list[Json] = [{"event": "routed"}, {"cron": "0 9 * * *"}]
        for version in (1, 2):
            steps = {"a": SIMPLE, "b": {**SIMPLE, "name": f"v{version}", "after": pause("1h")}}
            definition = {"id": "routed", "triggers": cron, "steps": steps}
            stepwell.deploy(write(self._folder / f"routed-{version}", definition, steps__app_py=HANDLER))
        stepwell.api("POST", "/v1/functions/routed/pause")
        event = stepwell.send("routed")
        stepwell.api("POST", "/v1/functions/routed/resume")
        self._finish()
        assert len(stepwell.runs(event)) == 1
        stepwell.api("POST", "/v1/functions/routed/rollback")
        canary = {"version": 2, "weight": 0.5, "guard": True}
        stepwell.api("PUT", "/v1/functions/routed/routing", {"canary": canary})
        stepwell.travel("2m")
        stepwell.get("/v1/functions/routed/versions")
        stepwell.api("DELETE", "/v1/functions/routed?cancel=true")
        self._finish()
        assert stepwell.runs(event)[0]["status"] == "cancelled"

    def _rolled_back(self) -> None:
        """A guarded canary fails, and `tick` rolls it back."""
        stepwell = self._stepwell
        for version, handler in enumerate(("echo", "fail"), 1):
            runtime = {**SIMPLE["runtime"], "handler": f"app.{handler}"}
            definition = one_step("guarded", "guarded", runtime=runtime, retries={"attempts": 0})
            stepwell.deploy(write(self._folder / f"guarded-{version}", definition, steps__app_py=HANDLER))
        stepwell.api("POST", "/v1/functions/guarded/rollback")
        canary = {"version": 2, "weight": 0.5, "guard": True}
        stepwell.api("PUT", "/v1/functions/guarded/routing", {"canary": canary})
        for n in range(40):
            stepwell.send("guarded", id=f"guarded {n}")
        stepwell.travel("2m")
        assert stepwell.get("/v1/functions/guarded/routing")["canary"] is None

    def _approvals(self) -> None:
        """Approvals with short and long timeouts, opened by route and by advance, with and without a decision."""
        stepwell = self._stepwell
        asks = {"runtime": {"type": "approval", "message": "{{ data.n }}?"}, "after": STARTED_BY[1:2]}
        steps = {"near": {**asks, "timeout": "5m"}, "far": {**asks, "after": [], "timeout": "2d"}}
        names = [{"event": name} for name in ("now", "later")]
        definition = {"id": "asking", "triggers": names, "steps": steps}
        stepwell.deploy(write(self._folder / "asking", definition))
        run = next(
            run["id"] for run in stepwell.runs(stepwell.send("later", {"n": 1})) if run["function_id"] == "asking"
        )
        assert [item["step_id"] for item in stepwell.get("/v1/approvals")["data"]] == ["far"]
        link = stepwell.run(run)["steps"]["far"]["approval"]["approve_url"]
        assert stepwell.http("GET", link.removeprefix(stepwell.resources.api_url)).status == 200
        stepwell.travel("6m")
        stepwell.approve(run, "far")
        stepwell.travel("6m")
        assert stepwell.run(run)["error"]["kind"] == "approval_timeout"
        self._finish()

    def _stacks(self) -> None:
        """A function of a CloudFormation stack is created, updated and deleted."""
        cron, later = (
            parse_definition(one_step("stacked", on)).normalised() for on in ({"cron": "* * * * *"}, {"event": "go"})
        )
        for kind, definition in (("Create", cron), ("Update", later), ("Update", cron), ("Delete", cron)):
            properties = {"Definition": json.dumps(definition), "Targets": "{}", "Code": "{}", "File": "stepwell.json"}
            for _ in range(2 if definition is cron else 1):  # CloudFormation may send a request twice
                self._custom_resource(kind, "Function", "stacked", properties)

        typed = {"Name": "go", "Version": "1", "Schema": '{"type": "object"}', "Policy": "reject"}
        rule = {"Rule": json.dumps({"name": "stacked", "event": "go"})}
        for kind in ("Create", "Update", "Delete"):
            for type_, name, properties in (("Type", "go 1", typed), ("Webhook", "stacked", rule)):
                self._custom_resource(kind, type_, name, properties)
        self._stepwell.send("go")  # the event type stays after the deletion of the stack

    def _signing_keys(self) -> None:
        """The environment's stack is created, gets another KMS key, and is deleted."""
        for kind in ("Create", "Update"):
            self._custom_resource(kind, "SigningKeys", "keys", {})
        self._custom_resource("Create", "SecretInTable", "secret", {})
        if not self._settings.keep_data:
            self._custom_resource("Delete", "SigningKeys", "keys", {})

    def _custom_resource(self, kind: str, type_: str, name: str, properties: Json) -> None:
        self._stepwell.register(
            {
                "RequestType": kind,
                "ResourceType": f"Custom::Stepwell{type_}",
                "StackId": "stack",
                "RequestId": "request",
                "LogicalResourceId": "Registered",
                "PhysicalResourceId": name,
                "ResponseURL": self._site,
                "ResourceProperties": properties,
            }
        )

    def _completed(self, event: str) -> str:
        """The id of the only run, once it has completed."""
        self._finish()
        (run,) = self._stepwell.runs(event)
        assert run["status"] == "completed", run
        text: str = run["id"]
        return text

    def _finish(self) -> None:
        self._stepwell.settle()
        self._stepwell.run_tasks()
        self._stepwell.settle()


def _make_my_lambda() -> None:
    """An item that existed before Stepwell was deployed."""
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("app.py", HANDLER)
    role = boto3.client("iam").create_role(RoleName="mine", AssumeRolePolicyDocument=json.dumps(trust("123456789012")))[
        "Role"
    ]
    boto3.client("lambda").create_function(
        FunctionName="mine",
        Runtime="python3.13",
        Handler="app.echo",
        Role=role["Arn"],
        Code={"ZipFile": code.getvalue()},
    )
