"""Prune removes resources that no live or running version needs, and nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError

from stepwell.aws.deploy.prune import GRACE_MS, Prune
from stepwell.aws.functions.registry import Registry
from stepwell.aws.functions.releases import Releases
from stepwell.aws.functions.versions import NewVersion
from stepwell.aws.table.keys import run_key, status_partition
from stepwell.core.definition.definition import parse_definition
from stepwell.core.routing.versions import NotPossible, Routing, rolled_back, with_canary
from tests.push.conftest import Aws, Body, refusal

Write = Callable[..., Path]
STEPS = {"a": {"path": "file://./a"}}


def prune(aws: Aws, *, later_ms: int = 2 * GRACE_MS, **options: Any) -> list[str]:
    pruning = Prune(aws.resources, aws.account(), time.time_ns() // 1_000_000 + later_ms, **options)
    unneeded = pruning.plan()
    for what in unneeded:
        pruning.apply(what)
    return sorted(what.kind for what in unneeded)


def push_thrice(aws: Aws, write: Write) -> tuple[Path, str, set[str]]:
    """Pushes three versions of a function. Returns the Lambda of the first, and those of the second, which a rollback
    uses, and of the third, which is live."""
    names = []
    for text in ("1", "2", "3"):
        folder = write(steps=STEPS, files={"a/main.py": text, "a/.env": "A=1\n"})
        aws.push(folder)
        version = Registry(aws.resources).version("f", int(text))
        names.append(version.targets["a"]["lambda"])
    return folder, names[0], set(names[1:])


def lambdas(aws: Aws) -> set[str]:
    return {function["FunctionName"] for function in aws.session.client("lambda").list_functions()["Functions"]}


def open_run(aws: Aws, version: int) -> None:
    fields = {"f": {"S": "f"}, "n": {"N": str(version)}, "gk": {"S": status_partition("running", 3)}, "gs": {"N": "1"}}
    aws.session.client("dynamodb").put_item(TableName=aws.resources.table, Item={**run_key("r1"), **fields})


def test_resources_of_replaced_versions_are_removed(aws: Aws, write: Write) -> None:
    folder, _, new = push_thrice(aws, write)
    assert prune(aws) == ["code", "lambda", "log group"]
    assert lambdas(aws) == new
    assert aws.push(folder) == ([], [])
    assert prune(aws) == []


def test_a_version_that_was_pruned_cannot_go_live_until_it_is_pushed_again(aws: Aws, write: Write) -> None:
    push_thrice(aws, write)
    registry = Registry(aws.resources)
    releases = Releases(aws.resources, registry)

    def roll_back(to: int) -> Routing:
        return releases.change_routing("f", lambda old, versions, now: rolled_back(old, to, versions), 1)

    prune(aws)
    with pytest.raises(NotPossible, match="version 1 was pruned, so nothing can run it; push it again"):
        roll_back(1)
    with pytest.raises(NotPossible, match="version 1 was pruned"):
        releases.change_routing("f", lambda old, _, now: with_canary(old, 1, 0.1, None, False, now), 1)
    assert registry.routing("f") == Routing(3, previous=2)
    assert roll_back(2).live == 2
    prune(aws)
    aws.push(write(steps=STEPS, files={"a/main.py": "3", "a/.env": "A=1\n"}))
    assert registry.routing("f") == Routing(3, previous=2), (
        "the same again is the newest version, and has a Lambda again"
    )


def test_a_version_with_an_open_run_keeps_what_it_needs(aws: Aws, write: Write) -> None:
    _, old, new = push_thrice(aws, write)
    open_run(aws, 1)
    assert prune(aws) == []
    assert lambdas(aws) == {old, *new}


def test_recently_replaced_or_created_resources_stay(aws: Aws, write: Write) -> None:
    _, old, new = push_thrice(aws, write)
    assert prune(aws, later_ms=GRACE_MS // 2) == []
    assert lambdas(aws) == {old, *new}


def test_all_resources_of_a_retired_function_are_removed(aws: Aws, write: Write) -> None:
    folder, _, _ = push_thrice(aws, write)
    Releases(aws.resources).retire(["f"])
    assert prune(aws) == [*3 * ["code"], *3 * ["lambda"], *3 * ["log group"], "parameter", "role"]
    assert lambdas(aws) == set()
    _, (registered,) = aws.push(folder)
    assert registered.version == 3
    assert len(lambdas(aws)) == 1


def test_the_role_of_a_step_in_a_vpc_is_removed_by_the_next_prune(aws: Aws, write: Write) -> None:
    """Lambda needs the role to remove network interfaces, some time after the function is deleted."""
    aws.resources = replace(aws.resources, step_subnets=("subnet-0a",), step_security_groups=("sg-0a",))
    aws.push(write(steps={"a": {"path": "file://.", "runtime": {"type": "lambda", "vpc": True}}}))
    Releases(aws.resources).retire(["f"])
    assert prune(aws) == ["code", "lambda", "log group"]
    assert prune(aws) == ["role"]


def test_logs_stay_as_long_as_logs_are_kept(aws: Aws, write: Write) -> None:
    _, old, _ = push_thrice(aws, write)
    logs, group = aws.session.client("logs"), f"/aws/lambda/{old}"
    logs.create_log_stream(logGroupName=group, logStreamName="s")
    event = {"timestamp": time.time_ns() // 1_000_000, "message": "hello"}
    logs.put_log_events(logGroupName=group, logStreamName="s", logEvents=[event])
    assert prune(aws) == ["code", "lambda"]
    assert prune(aws, later_ms=31 * 86_400_000) == ["log group"]


def test_prune_all_removes_everything_that_pushes_made(aws: Aws, write: Write) -> None:
    _, old, _ = push_thrice(aws, write)
    aws.session.client("logs").create_log_stream(logGroupName=f"/aws/lambda/{old}", logStreamName="s")
    assert prune(aws, later_ms=1000, grace_ms=0, and_logs=True) == ["code", "lambda", "log group"]  # of version 1
    Releases(aws.resources).retire(["f"])
    gone = [*2 * ["code"], *2 * ["lambda"], *2 * ["log group"], "parameter", "role"]
    assert prune(aws, later_ms=1000, grace_ms=0, and_logs=True) == gone
    assert (lambdas(aws), groups(aws)) == (set(), set())


def test_logs_of_containers_are_removed_with_the_function(aws: Aws, write: Write) -> None:
    aws.push(write())
    logs, prefix = aws.session.client("logs"), "/stepwell/dev/tasks/"
    for function_id in ("f", "gone"):
        logs.create_log_group(logGroupName=prefix + function_id, tags={"stepwell:env": "dev"})
    logs.create_log_group(logGroupName=f"{prefix}theirs", tags={"stepwell:env": "other"})
    assert prune(aws) == ["log group"]
    assert groups(aws, prefix) == {f"{prefix}f", f"{prefix}theirs"}


def test_images_that_no_task_definition_runs_are_removed(aws: Aws) -> None:
    ecr, ecs = aws.session.client("ecr"), aws.session.client("ecs")
    uri = ecr.create_repository(repositoryName="stepwell-dev-steps")["repository"]["repositoryUri"]
    for tag in ("new", "old"):
        ecr.put_image(repositoryName="stepwell-dev-steps", imageManifest=manifest(tag), imageTag=tag)
    task = ecs.register_task_definition(
        family="stepwell-dev-f", containerDefinitions=[{"name": "step", "image": f"{uri}:new", "memory": 512}]
    )["taskDefinition"]["taskDefinitionArn"]
    aws.resources = replace(aws.resources, repository=uri, cluster="stepwell-dev")
    definition = {
        "id": "f",
        "triggers": [{"event": "go"}],
        "steps": {"a": {"runtime": {"type": "docker", "image": "i"}}},
    }
    normalised = parse_definition(definition).normalised()
    Releases(aws.resources).register(NewVersion(normalised, {"a": {"ecs": task}}, {}, "", "", "stepwell.json"), 1)
    assert prune(aws, later_ms=0) == []  # it may belong to a push that is running
    assert prune(aws) == ["image"]
    left = ecr.list_images(repositoryName="stepwell-dev-steps")["imageIds"]
    assert [image["imageTag"] for image in left] == ["new"]


def manifest(content: str) -> str:
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "size": 1, "digest": f"sha256:{content * 16:.64}"}
    media_type = "application/vnd.oci.image.manifest.v1+json"
    return json.dumps({"schemaVersion": 2, "mediaType": media_type, "config": layer, "layers": [layer]})


@pytest.mark.parametrize("name", ["stepwell-dev-route", "stepwell-dev-x-0123456789ab", "theirs"])
def test_resources_that_no_push_made_are_left_alone(aws: Aws, name: str) -> None:
    iam = aws.session.client("iam")
    role = iam.create_role(RoleName="stepwell-dev-step-theirs", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    aws.session.client("lambda").create_function(
        FunctionName=name, Runtime="python3.13", Role=role, Handler="a.b", Code={"ZipFile": b"x"}
    )
    assert prune(aws) == []


def test_an_environment_with_the_same_name_prefix_is_left_alone(aws: Aws, write: Write) -> None:
    push_thrice(aws, write)
    client = aws.session.client("lambda")
    made = client.get_function(FunctionName=next(iter(lambdas(aws))))["Configuration"]
    client.create_function(
        FunctionName="stepwell-dev-two-f-0123456789ab",
        Runtime="python3.13",
        Role=made["Role"],
        Handler="a.b",
        Code={"ZipFile": b"x"},
        Tags={"stepwell:env": "dev-two", "stepwell:hash": "0123456789ab"},
    )
    prune(aws)
    assert "stepwell-dev-two-f-0123456789ab" in lambdas(aws)


def test_logs_of_an_environment_with_the_same_name_prefix_are_left_alone(aws: Aws, write: Write) -> None:
    """By name, the group could be that of a function `two-f` in this environment."""
    push_thrice(aws, write)
    group = "/aws/lambda/stepwell-dev-two-f-0123456789ab"
    aws.session.client("logs").create_log_group(logGroupName=group, tags={"stepwell:env": "dev-two"})
    prune(aws)
    assert groups(aws, group) == {group}


def test_logs_of_a_push_that_never_ended_are_removed(aws: Aws, write: Write) -> None:
    aws.fail_once("CreateFunction", refusal("AccessDeniedException", "no", "CreateFunction"))
    with pytest.raises(ClientError):
        aws.push(write())
    assert len(groups(aws)) == 1
    assert prune(aws) == ["code", "log group", "role"]
    assert groups(aws) == set()


def test_a_log_group_that_lambda_created_first_is_tagged_by_the_push(aws: Aws, write: Write) -> None:
    folder = write()
    (group,) = [action.name for action in aws.push(folder, dry_run=True)[0] if action.kind == "log group"]
    aws.session.client("logs").create_log_group(logGroupName=group)
    aws.push(folder)
    Releases(aws.resources).retire(["f"])
    assert "log group" in prune(aws)


# --- resources that stacks retained ----------------------------------------------------------------------------------


def of_a_stack(aws: Aws, env: str = "dev") -> str:
    """Creates a step's Lambda as `stepwell.cdk.Functions` does, and returns the name."""
    iam, name = aws.session.client("iam"), f"stepwell-{env}-s-0123456789ab"
    tags = {"stepwell:env": env, "stepwell:function": "s"}
    role = iam.create_role(
        RoleName=f"Mine-role-{env}",
        AssumeRolePolicyDocument="{}",
        Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
    )["Role"]["Arn"]
    aws.session.client("lambda").create_function(
        FunctionName=name, Runtime="python3.13", Role=role, Handler="a.b", Code={"ZipFile": b"x"}, Tags=tags
    )
    return name


def registered_by_a_stack(aws: Aws, name: str) -> None:
    definition = {"id": "s", "triggers": [{"event": "go"}], "steps": {"a": {"path": "file://./a"}}}
    target = {"lambda": f"arn:aws:lambda:{aws.resources.region}:{aws.resources.account}:function:{name}:1"}
    new = NewVersion(parse_definition(definition).normalised(), {"a": target}, {}, "", "", "f")
    Releases(aws.resources).register(new, 1)


def roles(aws: Aws) -> set[str]:
    return {role["RoleName"] for role in aws.session.client("iam").list_roles()["Roles"]}


def test_a_lambda_that_left_the_stack_is_removed_with_the_role(aws: Aws) -> None:
    name, other = of_a_stack(aws), of_a_stack(aws, "dev-two")
    registered_by_a_stack(aws, name)
    assert prune(aws) == []  # the version is live
    Releases(aws.resources).retire(["s"])
    assert prune(aws, later_ms=0) == []
    assert prune(aws) == ["lambda", "role"]
    assert (lambdas(aws), roles(aws)) == ({other}, {"Mine-role-dev-two"})
    assert prune(aws) == []


def test_a_lambda_that_left_the_stack_stays_while_a_run_needs_it(aws: Aws) -> None:
    name = of_a_stack(aws)
    registered_by_a_stack(aws, name)
    Releases(aws.resources).retire(["s"])
    fields = {"f": {"S": "s"}, "n": {"N": "1"}, "gk": {"S": status_partition("running", 3)}, "gs": {"N": "1"}}
    aws.session.client("dynamodb").put_item(TableName=aws.resources.table, Item={**run_key("r1"), **fields})
    assert prune(aws) == []
    assert lambdas(aws) == {name}


def test_a_lambda_that_is_part_of_a_stack_stays(aws: Aws) -> None:
    name, requests = of_a_stack(aws), []

    def answer(request: Any, **_: Any) -> AWSResponse:
        requests.append(request.body)
        content = "<DescribeStackResourcesResponse><DescribeStackResourcesResult/></DescribeStackResourcesResponse>"
        return AWSResponse(request.url, 200, {}, Body(content.encode()))

    aws.session.events.register("before-send.cloudformation.DescribeStackResources", answer)
    assert prune(aws) == []
    assert lambdas(aws) == {name}
    assert len(requests) == 1


def test_a_version_of_the_adapter_s_layer_is_removed_when_no_lambda_uses_it(aws: Aws, write: Write) -> None:
    client, old = aws.session.client("lambda"), aws.resources.layers["arm64"]
    folder = write()
    aws.push(folder)
    new = client.publish_layer_version(LayerName="adapter-arm64", Content={"ZipFile": b"newer"})["LayerVersionArn"]
    aws.resources = replace(aws.resources, layers={**aws.resources.layers, "arm64": new})
    assert prune(aws) == []  # the step's Lambda uses it
    aws.push(folder)
    assert prune(aws, later_ms=0) == []  # a push that began earlier may use it
    assert prune(aws) == ["layer"]
    left = client.list_layer_versions(LayerName="adapter-arm64")["LayerVersions"]
    assert [version["LayerVersionArn"] for version in left] == [new]
    assert old != new


def groups(aws: Aws, prefix: str = "/aws/lambda/") -> set[str]:
    found = aws.session.client("logs").describe_log_groups(logGroupNamePrefix=prefix)["logGroups"]
    return {group["logGroupName"] for group in found}
