"""Handles CloudFormation custom resources: registers the functions, event types and webhooks of a stack.

Every request is answered, also after an error, because CloudFormation waits an hour for an answer. The protocol:
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref.html
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any
from urllib.request import Request, urlopen

import orjson
from botocore.exceptions import ClientError

from stepwell.aws.clients import client
from stepwell.aws.functions.event_types import TypeStore
from stepwell.aws.functions.registry import Registry
from stepwell.aws.functions.releases import Releases, awaits
from stepwell.aws.functions.versions import NewVersion
from stepwell.aws.functions.webhooks import AwsWebhooks
from stepwell.aws.resources import Resources
from stepwell.aws.signing import signing_keys
from stepwell.core.compile import compile_plan
from stepwell.core.plan import Plan
from stepwell.event_types.registry import Policy, TypeVersion

log = logging.getLogger("stepwell.registrar")
_LONGEST_REASON = 1000
FUNCTION, TYPE, WEBHOOK = "Custom::StepwellFunction", "Custom::StepwellType", "Custom::StepwellWebhook"
SIGNING_KEYS, SECRET_IN_TABLE = "Custom::StepwellSigningKeys", "Custom::StepwellSecretInTable"
"""Resources of the environment's stack: keys exist before the Lambdas, and the secret that older Lambdas read from the
table is removed after them."""
_TRIES, _TRY_AGAIN_S = 8, 5.0


def handle(event: dict[str, Any], resources: Resources, sleep: Callable[[float], None] = time.sleep) -> None:
    """Handles one request of CloudFormation and sends the answer.

    The `ResourceProperties` are strings. A function has `Definition`, `Targets` and `Code` (JSON) and `File`; an event
    type has `Name`, `Version`, `Schema` (JSON) and `Policy`; a webhook has `Rule` (JSON). The physical id is the id or
    name of the function, type or webhook.
    """
    properties, kind = event["ResourceProperties"], event.get("ResourceType", FUNCTION)
    physical_id = event.get("PhysicalResourceId") or event["LogicalResourceId"]
    data: dict[str, Any] = {}
    try:
        if event["RequestType"] == "Delete":
            _remove(kind, physical_id, resources)
        elif kind in (SIGNING_KEYS, SECRET_IN_TABLE):
            _until_allowed(lambda: _update_keys(event["RequestType"], kind, resources), sleep)
        elif kind == TYPE:
            physical_id = _register_type(properties, resources)
        elif kind == WEBHOOK:
            rule = orjson.loads(properties["Rule"])
            AwsWebhooks(resources).put_webhook(rule)
            physical_id = rule["name"]
        else:
            physical_id, data["Version"] = _register(properties, resources, sleep)
    except Exception as error:
        log.exception("%s of %s failed", event["RequestType"], physical_id)
        reason = f"{type(error).__name__}: {error}"[:_LONGEST_REASON]
        _answer(event, physical_id, {"Status": "FAILED", "Reason": reason})
    else:
        _answer(event, physical_id, {"Status": "SUCCESS", "Data": data})


def _update_keys(request: str, kind: str, resources: Resources) -> None:
    ssm, now = client("ssm"), time.time_ns() // 1_000_000
    if kind == SECRET_IN_TABLE:
        signing_keys.leave_table(ssm, resources, now)
    else:
        signing_keys.make_keys(ssm, resources, now)
        if request == "Update":  # the KMS key of the environment has changed
            signing_keys.encrypt_again(ssm, resources)


def _until_allowed(do: Callable[[], None], sleep: Callable[[float], None]) -> None:
    """Calls `do` until access is no longer denied: IAM takes some seconds to apply the policy of a new role.
    https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot.html
    """
    for left in reversed(range(_TRIES)):
        try:
            do()
            return
        except ClientError as error:
            if not left or error.response["Error"]["Code"] != "AccessDeniedException":
                raise
            log.warning("access denied, trying again: %s", error)
            sleep(_TRY_AGAIN_S)


def _remove(kind: str, physical_id: str, resources: Resources) -> None:
    """Removes what a resource has registered, if it exists. Event types stay: events of the type may still be sent."""
    if kind == SIGNING_KEYS:
        signing_keys.delete_keys(client("ssm"), resources.env)
    elif kind == WEBHOOK:
        AwsWebhooks(resources).remove_webhook(physical_id)
    elif kind == FUNCTION:
        known = [row.id for row in Registry(resources).functions()]
        Releases(resources).retire([physical_id] if physical_id in known else [])


def _register_type(properties: dict[str, Any], resources: Resources) -> str:
    policy = Policy(properties["Policy"]) if "Policy" in properties else None
    version = TypeVersion(properties["Name"], properties["Version"], orjson.loads(properties["Schema"]), policy)
    TypeStore(resources).register_type(version)
    return f"{version.name} {version.version}"


def _register(properties: dict[str, Any], resources: Resources, sleep: Callable[[float], None]) -> tuple[str, int]:
    definition, targets, code = (orjson.loads(properties[name]) for name in ("Definition", "Targets", "Code"))
    registry, plan = Registry(resources), compile_plan(definition, 0)
    releases = Releases(resources, registry)
    releases.stage(definition)
    if awaits(plan) - awaits(_live(registry, plan.function_id)):
        sleep(resources.cache_s + 1)  # every router must know the new wait paths before a run can wait
    new = NewVersion(definition, targets, code, "", "cloudformation", properties["File"])
    made = releases.register(new, time.time_ns() // 1_000_000)
    return made.function_id, made.version


def _live(registry: Registry, function_id: str) -> Plan | None:
    live = next((row.live for row in registry.functions() if row.id == function_id), None)
    return None if live is None else registry.version(function_id, live).plan


def _answer(event: dict[str, Any], physical_id: str, outcome: dict[str, Any]) -> None:
    same = {name: event[name] for name in ("StackId", "RequestId", "LogicalResourceId")}
    body = orjson.dumps({**same, "PhysicalResourceId": physical_id, **outcome})
    request = Request(event["ResponseURL"], body, {"content-type": ""}, method="PUT")
    with urlopen(request, timeout=10):
        pass
