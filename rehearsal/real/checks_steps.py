"""Lambda steps get the /tmp, the traces and the network that they ask for."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rehearsal.real.account import Account, Json
from rehearsal.real.checks import Failed, Skipped, check
from rehearsal.real.checks_basics import run_of, seconds

MB = 1024 * 1024
STORAGE_MB = 1024
LOOK = """
import os

def handler(event, context):
    storage = os.statvfs("/tmp")
    return {"tmp": storage.f_frsize * storage.f_blocks, "trace": os.environ.get("_X_AMZN_TRACE_ID", "")}
"""
TRY_NETWORK = """
import boto3

def handler(event, context):
    ec2 = boto3.client("ec2")  # with the step's role, which Lambda needs for the network interfaces
    try:
        ec2.describe_network_interfaces(MaxResults=5)
        return {"says": "allowed"}
    except Exception as error:
        return {"says": type(error).__name__ + ": " + str(error)}
"""


def output_of(
    account: Account, name: str, code: str, runtime: Json, within_s: float = 90, **step: Any
) -> tuple[Json, Json]:
    """Push a function of one step with this code and runtime, and run it; its output, and the run."""
    with TemporaryDirectory() as made:
        folder = Path(made) / name
        folder.mkdir()
        step = {"path": "file://.", "runtime": {"type": "lambda", "handler": "app.handler", **runtime}, **step}
        definition = {"id": f"smoke-{name}", "triggers": [{"event": f"smoke/{name}"}], "steps": {"look": step}}
        (folder / "stepwell.json").write_text(json.dumps(definition))
        (folder / "app.py").write_text(code)
        account.push(Path(made))
        run = run_of(account, {"name": f"smoke/{name}"}, within_s)
    return run["steps"]["look"]["output"], run


@check("A step gets the /tmp that it asks for, and is traced", seconds=40, usd=0.001)
def a_step_gets_its_tmp_and_is_traced(account: Account) -> str:
    runtime = {"ephemeral_storage": STORAGE_MB, "tracing": True}
    seen, run = output_of(account, "settings", LOOK, runtime)
    if seen["tmp"] < 0.9 * STORAGE_MB * MB:
        raise Failed(f"/tmp has {seen['tmp'] / MB:.0f} MB, not {STORAGE_MB}; push again and look at its Lambda")
    if not seen["trace"].startswith("Root=1-"):
        raise Failed(f"the step saw no X-Ray header ({seen['trace']!r}); is `TracingConfig` of its Lambda Active?")
    sampled = "sampled" if "Sampled=1" in seen["trace"] else "not sampled"
    return f"/tmp has {seen['tmp'] / MB:.0f} MB; the trace {seen['trace'].split(';')[0]} is {sampled}; run {run['id']}"


@check("A step in the environment's VPC runs, on network interfaces that Lambda made", seconds=180, usd=0.002)
def a_step_runs_in_the_vpc(account: Account) -> str:
    groups = list(account.resources.step_security_groups)
    if not groups:
        raise Skipped("this environment has no network for steps: -c step_subnets=... -c step_security_groups=...")
    _, run = output_of(account, "vpc", LOOK, {"vpc": True}, within_s=300)
    filters = [{"Name": "group-id", "Values": groups}, {"Name": "interface-type", "Values": ["lambda"]}]
    found = account.client("ec2").describe_network_interfaces(Filters=filters)["NetworkInterfaces"]
    subnets = {interface["SubnetId"] for interface in found}
    if not subnets & {*account.resources.step_subnets}:
        raise Failed(f"no interface of Lambda with {groups} is in {account.resources.step_subnets}; found {subnets}")
    return (
        f"run {run['id']} took {seconds(run):.1f} s; {len(found)} interfaces of Lambda in {', '.join(sorted(subnets))}"
    )


@check("The code of a step in a VPC may not use the rights of its network", seconds=180, usd=0.002)
def code_gets_no_network_rights(account: Account) -> str:
    if account.options.get("nat") != "true":
        raise Skipped("the step must reach EC2's API: if the subnets of steps have a NAT gateway, say --with nat=true")
    seen, _ = output_of(account, "network-rights", TRY_NETWORK, {"vpc": True}, within_s=300, timeout="30s")
    if "explicit deny" not in seen["says"] and "UnauthorizedOperation" not in seen["says"]:
        raise Failed(f"the step's code could describe network interfaces: {seen['says']}")
    return str(seen["says"])[:200]
