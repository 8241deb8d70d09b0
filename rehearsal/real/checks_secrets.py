"""Only the Lambdas that need the signing keys may read them; dead letters can be listed and sent again."""

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

APPROVAL = """\
id: smoke-asks
triggers: [{event: smoke/asks}]
steps:
  ask: {runtime: {type: approval, message: 'Really?'}, timeout: 10m}
"""


@check("Signing keys are a SecureString in SSM, and not in the table", emulated=True)
def keys_are_not_in_the_table(account: Account) -> str:
    name = signing_keys_parameter(account.env)
    found = account.client("ssm").get_parameter(Name=name)["Parameter"]  # without decryption
    if found["Type"] != "SecureString":
        raise Failed(f"{name} is a {found['Type']}; delete it and run `stepwell signing-keys rotate`")
    if "Item" in account.client("dynamodb").get_item(TableName=account.resources.table, Key=SECRET):
        raise Failed(f"the table {account.resources.table} still has a signing key; deploy this version again")
    return f"{name}, version {found['Version']}"


@check("An approval link from before a rotation of the signing keys still works", seconds=320)
def links_outlive_a_rotation(account: Account) -> str:
    with TemporaryDirectory() as folder:
        (Path(folder) / "stepwell.yaml").write_text(APPROVAL)
        account.push(Path(folder))
    (event_id,) = account.api.send({"name": "smoke/asks"})

    def link() -> str | None:
        runs = account.api.runs_of(event_id)
        approval = runs[0]["steps"]["ask"].get("approval") if runs else None
        return approval["approve_url"] if approval else None

    before = account.until("the approval is open", link, 60).rpartition("/")[2]
    rotated = json.loads(account.stepwell("signing-keys", "rotate", "--json"))
    older = json.loads(account.stepwell("signing-keys", "list", "--json"))[1]["id"]
    account.cleanup.callback(account.stepwell, "signing-keys", "drop", older, "--yes")
    after = account.until("new links are signed with the new key", lambda: _signed_by(link(), rotated[0]["id"]), 400, 5)
    decided = account.api.call("POST", f"/v1/approvals/{before}", {"comment": "a check"})
    if decided["decision"] != "approved":
        raise Failed(f"the link from before the rotation answers {decided}")
    return f"decided with a link of key {older}; new links have key {after}"


def _signed_by(link: str | None, key: str) -> str | None:
    return key if link and f".{key}." in link else None


@check("Only some Lambdas may read the signing keys, and ingest may read only some partitions", seconds=5)
def roles_are_narrow(account: Account) -> str:
    keys = f"arn:aws:ssm:{account.resources.region}:{account.resources.account}:parameter"
    keys += signing_keys_parameter(account.env)
    table = f"arn:aws:dynamodb:{account.resources.region}:{account.resources.account}:table/{account.resources.table}"
    results = {name: _may(account, name, "ssm:GetParameter", keys) for name in ("route", "advance", "tick", "api")}
    results |= {f"not {name}": not _may(account, name, "ssm:GetParameter", keys) for name in ("ingest", "step_http")}
    partitions = {"KEY": True, "H": True, "Y#order/placed": True, "R#run": False, "E#event": False}
    for partition, allowed in partitions.items():
        may = _may(account, "ingest", "dynamodb:GetItem", table, partition)
        results[f"ingest {'reads' if allowed else 'does not read'} {partition}"] = may is allowed
    results["ingest does not scan"] = not _may(account, "ingest", "dynamodb:Scan", table)
    if wrong := [name for name, is_right in results.items() if not is_right]:
        raise Failed(f"IAM's simulation disagrees with: {', '.join(wrong)}; deploy this version again")
    return f"{len(results)} results of IAM's simulation"


def _may(account: Account, name: str, action: str, resource: str, partition: str = "") -> bool:
    """Whether IAM allows a Lambda's role the action, by simulation. Needs `iam:SimulatePrincipalPolicy`."""
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
    """Sends a message to the dead letters of `outcomes`, and returns the message id. Handling it changes nothing, as it
    is about a run that does not exist."""
    (queue,) = queues(account.client("sqs"), account.resources, "outcomes")
    run = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(26))
    body = json.dumps({"stepwell": "ended", "run": run}, separators=(",", ":"))
    sent: str = account.client("sqs").send_message(QueueUrl=queue.url, MessageBody=body)["MessageId"]
    return sent


@check("A dead letter is listed, and sent again by id", seconds=10, emulated=True)
def one_dead_letter_is_redriven(account: Account) -> str:
    letter = _give_up(account)

    def listed() -> Json | None:
        found = json.loads(account.stepwell("dead-letters", "list", "--queue", "outcomes", "--limit", "1000", "--json"))
        return next((item for item in found if item["id"] == letter), None)

    seen = account.until("it is listed", listed, 30)
    moved = json.loads(account.stepwell("dead-letters", "redrive", letter, "--queue", "outcomes", "--yes", "--json"))
    if moved != {"moved": {"outcomes": 1}} or listed():
        raise Failed(f"`dead-letters redrive {letter}` prints {moved}, or the letter is still listed")
    return f"{seen['kind']} of run {seen['about']['run']}"


@check("SQS moves all dead letters of a queue back to it", seconds=60)
def all_dead_letters_are_redriven(account: Account) -> str:
    sqs = account.client("sqs")
    (queue,) = queues(sqs, account.resources, "outcomes")
    if existing := count(sqs, queue):
        raise Skipped(f"{existing} other dead letters are in {queue.url}; handle them first")
    for _ in range(3):
        _give_up(account)
    account.until("the queue has 3 dead letters", lambda: count(sqs, queue) == 3, 60)
    moved = json.loads(account.stepwell("dead-letters", "redrive", "--queue", "outcomes", "--yes", "--json"))
    account.until("none is left", lambda: count(sqs, queue) == 0, 90)
    return f"SQS has moved {moved['moved']['outcomes']} of 3"
