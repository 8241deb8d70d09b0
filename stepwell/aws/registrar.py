"""Registers functions that a CloudFormation stack holds: the handler of a custom resource.

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

from stepwell.aws.registry import Registry, awaits
from stepwell.aws.resources import Resources
from stepwell.core.plan import Plan, compile_plan

log = logging.getLogger("stepwell.registrar")
_LONGEST_REASON = 1000


def handle(event: dict[str, Any], resources: Resources, sleep: Callable[[float], None] = time.sleep) -> None:
    """`ResourceProperties`: definition, targets and code (JSON texts), file. Its physical id is the function's."""
    properties = event["ResourceProperties"]
    function_id = event.get("PhysicalResourceId") or event["LogicalResourceId"]
    data: dict[str, Any] = {}
    try:
        if event["RequestType"] == "Delete":
            registry = Registry(resources)
            registry.retire([row.id for row in registry.functions() if row.id == function_id])
        else:
            function_id, data["Version"] = _register(properties, resources, sleep)
    except Exception as error:
        log.exception("%s of %s failed", event["RequestType"], function_id)
        _answer(
            event, function_id, {"Status": "FAILED", "Reason": f"{type(error).__name__}: {error}"[:_LONGEST_REASON]}
        )
    else:
        _answer(event, function_id, {"Status": "SUCCESS", "Data": data})


def _register(properties: dict[str, Any], resources: Resources, sleep: Callable[[float], None]) -> tuple[str, int]:
    definition, targets, code = (orjson.loads(properties[name]) for name in ("Definition", "Targets", "Code"))
    registry, plan = Registry(resources), compile_plan(definition, 0)
    registry.stage(definition)
    if awaits(plan) - awaits(_live(registry, plan.function_id)):
        sleep(resources.cache_s + 1)  # every router knows the new wait paths before a run can wait
    now = time.time_ns() // 1_000_000
    made = registry.register(definition, targets, code, "", "cloudformation", properties["File"], now)
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
