"""Signing keys are where only those may read them who need them; dead letters can be listed and sent again."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from tempfile import TemporaryDirectory

import boto3

from rehearsal.real.account import Account, Json
from rehearsal.real.checks import Failed, Skipped, check
from stepwell.aws.naming import signing_keys_parameter
from stepwell.aws.queues.dead_letters import count, queues
from stepwell.aws.table.keys import SECRET

ASKS = """\
id: smoke-asks
triggers: [{event: smoke/asks}]
steps:
  ask: {runtime: {type: approval, message: 'Really?'}, timeout: 10m}
"""


@check("Signing keys are a SecureString in SSM, and not in the table", emulated=True)
def keys_are_not_in_the_table(account: Account) -> str:
    name = signing_keys_parameter(account.env)
    found = account.client("ssm").get_parameter(Name=name)["Parameter"]  # encrypted: nobody needs to see it here
    if found["Type"] != "SecureString":
        raise Failed(f"{name} is a {found['Type']}; delete it and run `stepwell signing-keys rotate`")
    if "Item" in account.client("dynamodb").get_item(TableName=account.resources.table, Key=SECRET):
        raise Failed(f"the table {account.resources.table} still holds a secret; deploy this version again")
    return f"{name}, version {found['Version']}"


@check("A link that was made before a rotation of the signing keys still decides", seconds=320)
def links_outlive_a_rotation(account: Account) -> str:
    with TemporaryDirectory() as folder:
        (Path(folder) / "stepwell.yaml").write_text(ASKS)
        account.push(Path(folder))
    (event_id,) = account.api.send({"name": "smoke/asks"})

    def link() -> str | None:
        runs = account.api.runs_of(event_id)
        approval = runs[0]["steps"]["ask"].get("approval") if runs else None
        return approval["approve_url"] if approval else None

    before = account.until("somebody is asked", link, 60).rpartition("/")[2]
    rotated = json.loads(account.stepwell("signing-keys", "rotate", "--json"))
    older = json.loads(account.stepwell("signing-keys", "list", "--json"))[1]["id"]
    account.cleanup.callback(account.stepwell, "signing-keys", "drop", older, "--yes")
    after = account.until("new links are signed with the new key", lambda: _signed_by(link(), rotated[0]["id"]), 400, 5)
    decided = account.api.call("POST", f"/v1/approvals/{before}", {"comment": "a check"})
    if decided["decision"] != "approved":
        raise Failed(f"the link of before the rotation answers {decided}")
    return f"decided with key {older}, while {after} signs"


def _signed_by(link: str | None, key: str) -> str | None:
    return key if link and f".{key}." in link else None


@check("Only the Lambdas that sign may read the signing keys, and ingest reads only its part of the table", seconds=5)
def roles_are_narrow(account: Account) -> str:
    keys = f"arn:aws:ssm:{account.resources.region}:{account.resources.account}:parameter"
    keys += signing_keys_parameter(account.env)
    table = f"arn:aws:dynamodb:{account.resources.region}:{account.resources.account}:table/{account.resources.table}"
    seen = {name: _may(account, name, "ssm:GetParameter", keys) for name in ("route", "advance", "tick", "api")}
    seen |= {f"not {name}": not _may(account, name, "ssm:GetParameter", keys) for name in ("ingest", "step_http")}
    partitions = {"KEY": True, "H": True, "Y#order/placed": True, "R#run": False, "E#event": False}
    for partition, allowed in partitions.items():
        may = _may(account, "ingest", "dynamodb:GetItem", table, partition)
        seen[f"ingest {'reads' if allowed else 'does not read'} {partition}"] = may is allowed
    seen["ingest does not scan"] = not _may(account, "ingest", "dynamodb:Scan", table)
    if wrong := [name for name, holds in seen.items() if not holds]:
        raise Failed(f"IAM's simulation says otherwise of: {', '.join(wrong)}; deploy this version again")
    return f"{len(seen)} answers of IAM's simulation"


def _may(account: Account, name: str, action: str, resource: str, partition: str = "") -> bool:
    """What IAM would answer a Lambda. Needs `iam:SimulatePrincipalPolicy`."""
    role = account.client("lambda").get_function_configuration(FunctionName=account.engine_lambda(name))["Role"]
    key: Json = {"ContextKeyName": "dynamodb:LeadingKeys", "ContextKeyType": "stringList"}
    answer = boto3.client("iam").simulate_principal_policy(
        PolicySourceArn=role,
        ActionNames=[action],
        ResourceArns=[resource],
        ContextEntries=[{**key, "ContextKeyValues": [partition]}] if partition else [],
    )
    return bool(answer["EvaluationResults"][0]["EvalDecision"] == "allowed")


def _give_up(account: Account) -> str:
    """A message among the dead letters of `outcomes` that changes nothing when it is handled: its run is unknown."""
    (queue,) = queues(account.client("sqs"), account.resources, "outcomes")
    run = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(26))
    body = json.dumps({"stepwell": "ended", "run": run}, separators=(",", ":"))
    sent: str = account.client("sqs").send_message(QueueUrl=queue.url, MessageBody=body)["MessageId"]
    return sent


@check("A dead letter is listed, and sent again by its id", seconds=10, emulated=True)
def one_is_redriven(account: Account) -> str:
    letter = _give_up(account)

    def listed() -> Json | None:
        found = json.loads(account.stepwell("dead-letters", "list", "--queue", "outcomes", "--limit", "1000", "--json"))
        return next((item for item in found if item["id"] == letter), None)

    seen = account.until("it is listed", listed, 30)
    moved = json.loads(account.stepwell("dead-letters", "redrive", letter, "--queue", "outcomes", "--yes", "--json"))
    if moved != {"moved": {"outcomes": 1}} or listed():
        raise Failed(f"`dead-letters redrive {letter}` says {moved}")
    return f"{seen['kind']} of run {seen['about']['run']}"


@check("SQS moves all dead letters of a queue back to it", seconds=60)
def all_are_redriven(account: Account) -> str:
    sqs = account.client("sqs")
    (queue,) = queues(sqs, account.resources, "outcomes")
    if others := count(sqs, queue):
        raise Skipped(f"{others} other dead letters are in {queue.url}; look at them first")
    for _ in range(3):
        _give_up(account)
    account.until("they are there", lambda: count(sqs, queue) == 3, 60)
    moved = json.loads(account.stepwell("dead-letters", "redrive", "--queue", "outcomes", "--yes", "--json"))
    account.until("none is left", lambda: count(sqs, queue) == 0, 90)
    return f"SQS says that it moved {moved['moved']['outcomes']} of 3"
