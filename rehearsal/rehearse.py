"""The life of an environment in an emulated account: bootstrap, deploy with everything on, push, 200 events, cancel,
rerun, rotation of the signing key, dead letters, redeploy with `profile=dev`, prune, destroy.

It runs the commands that a user runs, and stops at the first problem.
"""

from __future__ import annotations

import hmac
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boto3
from account import BUILD, HERE, REGION, Thing, account, python_version, refusals, things
from client import Client, statuses, waiting
from pusher import COMMANDS, Pusher

from stepwell.aws.naming import signing_keys_parameter
from stepwell.aws.resources import Resources

ROOT = HERE.parent
ENV = "rehearsal"
EVENTS = 200
ASSEMBLY, SOURCES_ASSEMBLY = BUILD / "cdk.out", BUILD / "sources.out"
MACHINE = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
Json = dict[str, Any]
SOURCES = "StepwellRehearsalSources"
PUSHER: dict[str, str] = {}  # the credentials of the pushing role, once it exists


def main() -> None:
    with account() as url:
        settings = {
            "env": ENV,
            "architecture": MACHINE,
            "python": python_version(),
            "route_concurrency": 2,  # every instance is a process on this machine
            "advance_concurrency": 4,
        }
        settings |= everything()
        context = words(settings)
        step("bootstrap", lambda: cdk("bootstrap", f"aws://000000000000/{REGION}", folder=BUILD))
        before = things()
        step("deploy", lambda: cdk("deploy", "--require-approval", "never", *context))
        pusher = Pusher(Resources.of_environment(ENV), stepwell("policy", *COMMANDS, "--env", ENV))
        PUSHER.update(pusher.variables)
        step("push", push)
        key = json.loads(stepwell("keys", "create", "--scope", "manage", "--env", ENV, "--json"))["key"]
        client = Client(url, Resources.of_environment(ENV).api_url, key)
        step(f"{EVENTS} events", lambda: send_many(client))
        step("waits", lambda: pack(client))
        step("permissions of steps", lambda: check_step_permissions(client))
        step("permissions of the pushing role", pusher.check_refusals)
        step("a webhook", lambda: send_webhook(client))
        step("sources", lambda: read_sources(client, context))
        step("cancel and rerun", lambda: cancel_and_rerun(client))
        step("rotate the signing key while a run waits", lambda: rotate(client))
        step("dead letters", redrive)
        step("the checks of a real account", check)
        step(
            "redeploy with profile=dev while a run waits",
            lambda: redeploy(client, words(settings | {"alarm_email": ""})),
        )
        step("tick", tick)
        assert not refusals(), refusals()[0]
        step("remove what was pushed", remove_pushed)
        PUSHER.clear()
        pusher.leave()
        step("destroy the sources", lambda: cdk("destroy", "--force", "--app", str(SOURCES_ASSEMBLY)))
        step("destroy", lambda: destroy(before))
    print("the rehearsal has passed")


def words(settings: Mapping[str, object]) -> list[str]:
    return [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]


def everything() -> dict[str, str]:
    """Settings that turn on everything that the emulator supports. Containers are off: they need Docker."""
    ec2 = boto3.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.1.0/24")["Subnet"]["SubnetId"]
    group = ec2.create_security_group(GroupName="steps", Description="steps", VpcId=vpc)["GroupId"]
    return {
        "alarm_email": "somebody@example.com",
        "kms_key": boto3.client("kms").create_key()["KeyMetadata"]["Arn"],
        "tracing": "true",
        "step_subnets": subnet,
        "step_security_groups": group,
        "batching_window": "1",
    }


def step(name: str, do: Callable[[], object]) -> None:
    began = time.monotonic()
    print(f"{name} ...", flush=True)
    do()
    print(f"{name}: done in {time.monotonic() - began:.1f} s", flush=True)


# --- the steps of the rehearsal --------------------------------------------------------------------------------------


def push() -> None:
    """Pushes the functions, with the program for this machine's processor instead of the default arm64."""
    functions = BUILD / "functions"
    shutil.rmtree(functions, ignore_errors=True)
    shutil.copytree(HERE / "functions", functions)
    file = functions / "shell" / "stepwell.json"
    definition = json.loads(file.read_text())
    definition["steps"]["count"]["runtime"] = {"type": "lambda", "architecture": MACHINE}
    file.write_text(json.dumps(definition))
    stepwell("push", str(functions), "--env", ENV)
    assert "nothing has changed" in stepwell("push", str(functions), "--env", ENV)


def send_many(client: Client) -> None:
    orders = [
        {"name": "order/placed", "data": {"order": i, "total": 1, "declined": i % 10 == 0}} for i in range(EVENTS // 2)
    ]
    notes = [{"name": "note/taken", "data": {"n": i}} for i in range(EVENTS // 2)]
    for start in range(0, EVENTS // 2, 10):
        client.send(orders[start : start + 10])
        client.send(notes[start : start + 10])
    client.until(lambda runs: len(runs) == EVENTS, "every event starts a run")
    client.until(lambda runs: statuses(runs, "shell") == {"completed": EVENTS // 2}, "programs complete")
    client.until(lambda runs: waiting(runs) == EVENTS // 2, "every order waits to be packed")


def pack(client: Client) -> None:
    for start in range(0, EVENTS // 2, 10):
        client.send([packed(i) for i in range(start, start + 10)])
    runs = client.until(lambda runs: statuses(runs) == {"completed": EVENTS}, "every run completes")
    for run in runs:
        if run["function_id"] == "order":
            assert run["output"]["ship"]["paid"] == 100, run


def check_step_permissions(client: Client) -> None:
    """The step of `guest` tries requests that no step may make. This also shows that the emulator enforces IAM."""
    run = client.start({"name": "guest/came"})
    answers = client.until_completed(run["id"], "the guest's requests are denied")["output"]["look"]
    assert all("AccessDenied" in answer for answer in answers.values()), answers


def send_webhook(client: Client) -> None:
    """Sends a signed request twice. The pushed rule makes one event of it, with a secret that only `ingest` reads."""
    stepwell("secrets", "set", "GUESTS", "--value", "hush", "--env", ENV)
    body = b'{"does": "came"}'
    signature = f"sha256={hmac.new(b'hush', body, 'sha256').hexdigest()}"
    headers = {"x-hub-signature-256": signature, "x-github-delivery": "1", "content-type": "application/json"}
    ids = [client.post("/webhooks/guests", body, headers) for _ in range(2)]
    assert ids == [["webhook:guests:1"]] * 2, ids
    client.until(lambda runs: sum(run["event_id"] == ids[0][0] for run in runs) == 1, "the webhook starts one run")
    assert client.post("/webhooks/guests", body + b" ", headers) is None


def read_sources(client: Client, context: list[str]) -> None:
    """Deploys a stack with a queue, a stream and their sources. A record of each becomes an event that starts a run,
    and a record that makes no event is in the quarantine."""
    app = ("--app", f"{sys.executable} {HERE / 'sources_app.py'}", "--output", str(SOURCES_ASSEMBLY))
    cdk("deploy", "--require-approval", "never", *context, *app)
    (stack,) = boto3.client("cloudformation").describe_stacks(StackName=SOURCES)["Stacks"]
    made = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    sqs, body = boto3.client("sqs"), json.dumps({"does": "read"})
    message = sqs.send_message(QueueUrl=made["Queue"], MessageBody=body)["MessageId"]
    sqs.send_message(QueueUrl=made["Queue"], MessageBody="not JSON")
    boto3.client("kinesis").put_record(StreamName=made["StreamName"], Data=body, PartitionKey="a")
    queue = made["Queue"].rpartition("/")[2]
    of_stream = f"source:stream:kinesis/{made['StreamName']}/"

    def have_started(runs: list[Json]) -> bool:
        events = [run["event_id"] for run in runs]
        return f"source:notes:sqs/{queue}/{message}" in events and any(name.startswith(of_stream) for name in events)

    client.until(have_started, "a message and a record of a stream start runs")
    (letter,) = sqs.receive_message(QueueUrl=made["Quarantine"], WaitTimeSeconds=20)["Messages"]
    about = json.loads(letter["Body"])
    assert (about["source"], about["kind"]) == ("notes", "unreadable"), about


def cancel_and_rerun(client: Client) -> None:
    run = place(client, 1000)
    assert client.call("DELETE", f"/v1/runs/{run['id']}")["status"] == "cancelled"
    again = client.call("POST", f"/v1/runs/{run['id']}/rerun")
    assert again["rerun_of"] == run["id"], again
    client.until(lambda runs: waiting(runs) == 1, "the rerun waits")
    client.send([packed(1000)])
    client.until_completed(again["id"], "the rerun completes")


def rotate(client: Client) -> None:
    """A run continues after the rotation, although its token is signed with the old key."""
    run = place(client, 1500)
    before = json.loads(stepwell("signing-keys", "list", "--env", ENV, "--json"))
    stepwell("signing-keys", "rotate", "--env", ENV)
    after = json.loads(stepwell("signing-keys", "list", "--env", ENV, "--json"))
    assert [key["id"] for key in after[1:]] == [key["id"] for key in before], after
    client.send([packed(1500)])
    client.until_completed(run["id"], "the run goes on")


def redrive() -> None:
    """A dead letter is listed, and sent again."""
    sqs, resources = boto3.client("sqs"), Resources.of_environment(ENV)
    about = sqs.get_queue_attributes(QueueUrl=resources.outcomes_queue, AttributeNames=["RedrivePolicy"])["Attributes"]
    dead = json.loads(about["RedrivePolicy"])["deadLetterTargetArn"].rpartition(":")[2]
    of_no_run = json.dumps({"stepwell": "ended", "run": "a" * 26}, separators=(",", ":"))
    sqs.send_message(QueueUrl=sqs.get_queue_url(QueueName=dead)["QueueUrl"], MessageBody=of_no_run)
    (letter,) = json.loads(stepwell_as_admin("dead-letters", "list", "--env", ENV, "--json"))
    assert letter["kind"] == "ended", letter
    stepwell_as_admin("dead-letters", "redrive", letter["id"], "--env", ENV, "--yes")
    assert json.loads(stepwell_as_admin("dead-letters", "list", "--env", ENV, "--json")) == []


def redeploy(client: Client, context: list[str]) -> None:
    run = place(client, 2000)
    cdk("deploy", "--require-approval", "never", *context, "-c", "profile=dev", "-c", "batch_size=5")
    left = [thing for thing in things() if thing.kind.startswith("cloudwatch.") and f"-{ENV}-" in thing.name]
    assert not left, f"with profile=dev there are still {left}"
    client.send([packed(2000)])
    client.until_completed(run["id"], "the run goes on")


def tick() -> None:
    """Invokes tick, which otherwise runs every minute: the rehearsal may end before that."""
    (name,) = [
        thing.name for thing in things() if thing.kind == "lambda.list_functions" and "Functionstick" in thing.name
    ]
    answer = boto3.client("lambda").invoke(FunctionName=name)
    assert "FunctionError" not in answer, answer["Payload"].read()


def check() -> None:
    """Runs those checks of `rehearsal/real` that the emulator can pass."""
    print(
        command(
            [sys.executable, "-m", "rehearsal.real", "--env", ENV, "--emulated", "--with", f"architecture={MACHINE}"]
        )
    )


def remove_pushed() -> None:
    """Removes everything that pushes have made, before the environment is destroyed."""
    functions = [json.loads(file.read_text())["id"] for file in (BUILD / "functions").glob("*/stepwell.json")]
    stepwell("functions", "retire", *functions, "--env", ENV)
    stepwell("secrets", "remove", "GUESTS", "--env", ENV)
    stepwell("functions", "prune", "--all", "--env", ENV)
    assert "nothing to remove" in stepwell("functions", "prune", "--all", "--env", ENV)


def destroy(before: set[Thing]) -> None:
    """Destroys the stack, by the templates of the last deployment. Only the data may stay."""
    cdk("destroy", "--force", "--app", str(ASSEMBLY))
    left = things() - before
    keys = Thing("ssm.describe_parameters", signing_keys_parameter(ENV))
    data = {thing for thing in left if thing == keys or thing.kind in ("dynamodb.list_tables", "s3.list_buckets")}
    assert len(data) == 3, data
    assert left == data, f"left behind: {sorted(left - data)}"


def place(client: Client, order: int) -> Json:
    run = client.start({"name": "order/placed", "data": {"order": order, "total": 1}})
    client.until(lambda runs: waiting(runs) == 1, f"order {order} waits")
    return run


def packed(order: int) -> Json:
    return {"name": "order/packed", "data": {"order": order}}


# --- commands --------------------------------------------------------------------------------------------------------


def cdk(*words: str, folder: Path = ROOT) -> None:
    """Runs CDK. It synthesises the stack in folders with a `cdk.json`, for whatever command, which takes 15 s."""
    output = [] if "--app" in words else ["--output", str(ASSEMBLY)]
    command([str(ROOT / "node_modules/.bin/cdk"), *words, *output], folder=folder)


def stepwell(*words: str) -> str:
    """Runs a command with the pushing role, once it exists, and returns the output."""
    return command([sys.executable, "-m", "stepwell", *words], PUSHER)


def stepwell_as_admin(*words: str) -> str:
    """Runs a command for which `stepwell policy` has no policy, and returns the output."""
    return command([sys.executable, "-m", "stepwell", *words])


def command(words: list[str], variables: Mapping[str, str] = {}, folder: Path = ROOT) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where CDK finds Python
    done = subprocess.run(
        words, cwd=folder, env={**os.environ, "PATH": path, **variables}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(words)} failed:\n{done.stdout[-5000:]}\n{done.stderr[-5000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
