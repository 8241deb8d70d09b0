"""Lambda steps get the /tmp, the traces and the network in their definition."""

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
        return {"result": "allowed"}
    except Exception as error:
        return {"result": type(error).__name__ + ": " + str(error)}
"""


def output_of(
    account: Account, name: str, code: str, runtime: Json, within_s: float = 90, **step: Any
) -> tuple[Json, Json]:
    """Pushes a function of one step with this code and runtime, runs it, and returns the output and the run."""
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


@check("A step gets the size of /tmp in the definition, and is traced", seconds=40, usd=0.001)
def a_step_gets_its_tmp_and_is_traced(account: Account) -> str:
    runtime = {"ephemeral_storage": STORAGE_MB, "tracing": True}
    output, run = output_of(account, "settings", LOOK, runtime)
    tmp_mb, trace = output["tmp"] / MB, output["trace"]
    if tmp_mb < 0.9 * STORAGE_MB:
        raise Failed(f"/tmp has {tmp_mb:.0f} MB, not {STORAGE_MB}; push again, and check the step's Lambda")
    if not trace.startswith("Root=1-"):
        raise Failed(f"the step received no X-Ray header ({trace!r}); check `TracingConfig` of the step's Lambda")
    sampled = "sampled" if "Sampled=1" in trace else "not sampled"
    return f"/tmp has {tmp_mb:.0f} MB; the trace {trace.split(';')[0]} is {sampled}; run {run['id']}"


@check("A step in the environment's VPC runs, on network interfaces of Lambda", seconds=180, usd=0.002)
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


@check("The code of a step in a VPC may not use the permissions for network interfaces", seconds=180, usd=0.002)
def code_gets_no_network_rights(account: Account) -> str:
    if account.options.get("nat") != "true":
        raise Skipped("the step must reach EC2's API: if the subnets of steps have a NAT gateway, add --with nat=true")
    output, _ = output_of(account, "network-rights", TRY_NETWORK, {"vpc": True}, within_s=300, timeout="30s")
    result = str(output["result"])
    if "explicit deny" not in result and "UnauthorizedOperation" not in result:
        raise Failed(f"the step's code could describe network interfaces: {result}")
    return result[:200]
