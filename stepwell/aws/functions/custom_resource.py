"""Registers what a CloudFormation stack holds: functions, types of events, webhooks. The handler of custom resources.

One rule: CloudFormation always gets an answer, since without one it waits for an hour. Its protocol:
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
"""Of the environment's own stack: keys are there before its Lambdas, and what older ones used goes after them."""
_TRIES, _TRY_AGAIN_S = 8, 5.0


def handle(event: dict[str, Any], resources: Resources, sleep: Callable[[float], None] = time.sleep) -> None:
    """`ResourceProperties`, all texts: of a function `Definition`, `Targets`, `Code` (JSON) and `File`; of a type
    `Name`, `Version`, `Schema` (JSON), `Policy`; of a webhook `Rule` (JSON). The physical id names it."""
    properties, kind = event["ResourceProperties"], event.get("ResourceType", FUNCTION)
    its_id = event.get("PhysicalResourceId") or event["LogicalResourceId"]
    data: dict[str, Any] = {}
    try:
        if event["RequestType"] == "Delete":
            _remove(kind, its_id, resources)
        elif kind in (SIGNING_KEYS, SECRET_IN_TABLE):
            _patiently(lambda: _keep_keys(event["RequestType"], kind, resources), sleep)
        elif kind == TYPE:
            its_id = _register_type(properties, resources)
        elif kind == WEBHOOK:
            rule = orjson.loads(properties["Rule"])
            AwsWebhooks(resources).put_webhook(rule)
            its_id = rule["name"]
        else:
            its_id, data["Version"] = _register(properties, resources, sleep)
    except Exception as error:
        log.exception("%s of %s failed", event["RequestType"], its_id)
        _answer(event, its_id, {"Status": "FAILED", "Reason": f"{type(error).__name__}: {error}"[:_LONGEST_REASON]})
    else:
        _answer(event, its_id, {"Status": "SUCCESS", "Data": data})


def _keep_keys(request: str, kind: str, resources: Resources) -> None:
    ssm, now = client("ssm"), time.time_ns() // 1_000_000
    if kind == SECRET_IN_TABLE:
        signing_keys.leave_table(ssm, resources, now)
    else:
        signing_keys.make_keys(ssm, resources, now)
        if request == "Update":  # the environment's KMS key is another
            signing_keys.encrypt_again(ssm, resources)


def _patiently(do: Callable[[], None], sleep: Callable[[float], None]) -> None:
    """IAM takes some seconds until a role that was just made may do what its policy says.
    https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot.html
    """
    for left in reversed(range(_TRIES)):
        try:
            do()
            return
        except ClientError as error:
            if not left or error.response["Error"]["Code"] != "AccessDeniedException":
                raise
            log.warning("not allowed, perhaps not yet: %s", error)
            sleep(_TRY_AGAIN_S)


def _remove(kind: str, its_id: str, resources: Resources) -> None:
    """A type stays: others may send such events. Nothing happens if what is to go was never made."""
    if kind == SIGNING_KEYS:
        signing_keys.delete_keys(client("ssm"), resources.env)
    elif kind == WEBHOOK:
        AwsWebhooks(resources).remove_webhook(its_id)
    elif kind == FUNCTION:
        known = [row.id for row in Registry(resources).functions()]
        Releases(resources).retire([its_id] if its_id in known else [])


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
        sleep(resources.cache_s + 1)  # every router knows the new wait paths before a run can wait
    new = NewVersion(definition, targets, code, "", "cloudformation", properties["File"])
    made = releases.register(new, time.time_ns() // 1_000_000)
    return made.function_id, made.version


def _live(registry: Registry, function_id: str) -> Plan | None:
    live = next((row.live for row in registry.functions() if row.id == function_id), None)
    return None if live is None else registry.version(function_id, live).plan


def _answer(event: dict[str, Any], function_id: str, outcome: dict[str, Any]) -> None:
    same = {name: event[name] for name in ("StackId", "RequestId", "LogicalResourceId")}
    body = orjson.dumps({**same, "PhysicalResourceId": function_id, **outcome})
    request = Request(event["ResponseURL"], body, {"content-type": ""}, method="PUT")
    with urlopen(request, timeout=10):
        pass
