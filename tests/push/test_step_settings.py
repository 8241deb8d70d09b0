"""Steps with Lambda settings: a larger /tmp, layers, a VPC, traces; and Lambdas that are not ready at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from moto.awslambda.models import lambda_backends

from stepwell.aws.deploy.activity import NotUsable
from stepwell.aws.deploy.wanted import CannotPush
from stepwell.aws.functions.registry import Registry
from tests.push.conftest import ACCOUNT, REGION, Aws, Silent, refusal

Write = Callable[..., Path]
SUBNETS, GROUPS = ("subnet-0b", "subnet-0a"), ("sg-01",)


class Lines(Silent):
    """A watcher that records the progress messages of a push."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, action: Any, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def network(aws: Aws) -> Aws:
    """An environment with a network for steps."""
    aws.resources = replace(aws.resources, step_subnets=SUBNETS, step_security_groups=GROUPS)
    return aws


def made(aws: Aws) -> Any:
    (found,) = aws.session.client("lambda").list_functions()["Functions"]
    return found


def backend(name: str) -> Any:
    """The function as moto stores it."""
    return lambda_backends[ACCOUNT][REGION].get_function(name)


def statements(aws: Aws) -> dict[str, Any]:
    found = aws.session.client("iam").get_role_policy(RoleName="stepwell-dev-step-f", PolicyName="stepwell")
    return {statement["Sid"]: statement for statement in found["PolicyDocument"]["Statement"]}


def own_layer(aws: Aws) -> str:
    published = aws.session.client("lambda").publish_layer_version(LayerName="fonts", Content={"ZipFile": b"fonts"})
    return str(published["LayerVersionArn"])


def in_vpc(write: Write) -> Path:
    return write(steps={"a": {"path": "file://.", "runtime": {"type": "lambda", "vpc": True}}})


# --- settings --------------------------------------------------------------------------------------------------------


def test_a_step_gets_the_settings_in_the_definition(network: Aws, write: Write) -> None:
    layer = own_layer(network)
    runtime = {"type": "lambda", "ephemeral_storage": 2048, "layers": [layer], "vpc": True, "tracing": True}
    folder = write(steps={"a": {"path": "file://.", "runtime": runtime}})
    network.push(folder)
    found = made(network)
    assert found["EphemeralStorage"] == {"Size": 2048}
    assert found["TracingConfig"] == {"Mode": "Active"}
    assert (found["VpcConfig"]["SubnetIds"], found["VpcConfig"]["SecurityGroupIds"]) == (list(SUBNETS), list(GROUPS))
    assert [layer["Arn"] for layer in found["Layers"]] == [
        layer,
        network.resources.layers["arm64"],
    ]  # the adapter's is last
    assert network.push(folder) == ([], [])


def test_a_step_without_settings_gets_lambda_s_defaults(aws: Aws, write: Write) -> None:
    aws.push(write())
    found = made(aws)
    assert (found["EphemeralStorage"], found["TracingConfig"]) == ({"Size": 512}, {"Mode": "PassThrough"})
    assert not found.get("VpcConfig", {}).get("SubnetIds")
    assert statements(aws).keys() == {"Outcomes", "Logs"}


def test_the_order_of_subnets_does_not_matter(network: Aws, write: Write) -> None:
    folder = in_vpc(write)
    network.push(folder)
    network.resources = replace(network.resources, step_subnets=SUBNETS[::-1])
    assert network.push(folder) == ([], [])


def test_the_next_push_applies_a_changed_network_of_the_environment(network: Aws, write: Write) -> None:
    folder = in_vpc(write)
    network.push(folder)
    network.resources = replace(network.resources, step_subnets=("subnet-0c",))
    (action,), registered = network.push(folder)
    assert (action.verb, action.kind, action.detail, registered) == ("update", "lambda", "configuration", [])
    assert made(network)["VpcConfig"]["SubnetIds"] == ["subnet-0c"]


def test_the_environment_s_tracing_applies_to_steps_without_the_setting(aws: Aws, write: Write) -> None:
    silent = {"path": "file://a"}
    untraced = {"path": "file://a", "runtime": {"type": "lambda", "tracing": False}}
    aws.resources = replace(aws.resources, tracing=True)
    aws.push(write(steps={"silent": silent, "untraced": untraced}, files={"a/main.py": ""}))
    targets = Registry(aws.resources).version("f", 1).targets
    modes = {step: backend(target["lambda"]).tracing_config["Mode"] for step, target in targets.items()}
    assert modes == {"silent": "Active", "untraced": "PassThrough"}


# --- the role --------------------------------------------------------------------------------------------------------


def test_a_role_lets_lambda_but_not_the_code_create_network_interfaces(network: Aws, write: Write) -> None:
    network.push(in_vpc(write))
    found = statements(network)
    assert found["Network"] == {
        "Sid": "Network",
        "Effect": "Allow",
        "Action": [
            "ec2:AssignPrivateIpAddresses",
            "ec2:CreateNetworkInterface",
            "ec2:DeleteNetworkInterface",
            "ec2:DescribeNetworkInterfaces",
            "ec2:DescribeSubnets",
            "ec2:UnassignPrivateIpAddresses",
        ],
        "Resource": "*",
    }
    denied = found["NetworkNotByCode"]
    assert denied["Effect"] == "Deny"
    assert {*denied["Action"]} == {*found["Network"]["Action"], "ec2:DetachNetworkInterface"}
    functions = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:stepwell-dev-f-{'?' * 12}"
    assert denied["Condition"] == {"ArnLike": {"lambda:SourceFunctionArn": functions}}


def test_a_role_may_send_traces_only_where_a_step_is_traced(aws: Aws, write: Write) -> None:
    traced = {"path": "file://.", "runtime": {"type": "lambda", "tracing": True}}
    aws.push(write(steps={"a": traced}))
    assert statements(aws)["Traces"]["Action"] == ["xray:PutTelemetryRecords", "xray:PutTraceSegments"]


# --- errors ----------------------------------------------------------------------------------------------------------


def test_a_vpc_is_refused_if_the_environment_has_no_network_for_steps(aws: Aws, write: Write) -> None:
    with pytest.raises(CannotPush, match=r"stepwell\.json:.*step `a`: it has `vpc: true`.*-c step_subnets="):
        aws.push(in_vpc(write))
    assert not aws.writes


@pytest.mark.parametrize(
    "runtime",
    [{"type": "celery", "task": "shop.mail", "broker": "redis://localhost"}, {"type": "faktory", "jobtype": "Mail"}],
    ids=["celery", "faktory"],
)
def test_a_step_for_workers_of_another_system_is_refused(runtime: dict[str, str], aws: Aws, write: Write) -> None:
    message = rf"step `a`: the runtime {runtime['type']} works only on one machine \(`stepwell serve`\)"
    with pytest.raises(CannotPush, match=message):
        aws.push(write(steps={"a": {"runtime": runtime}}))
    assert not aws.writes


def test_a_layer_of_another_region_is_refused(aws: Aws, write: Write) -> None:
    layer = f"arn:aws:lambda:us-east-1:{ACCOUNT}:layer:fonts:3"
    with pytest.raises(CannotPush, match="is in us-east-1, but this environment is in eu-central-1"):
        aws.push(write(steps={"a": {"path": "file://.", "runtime": {"type": "lambda", "layers": [layer]}}}))


@pytest.mark.parametrize(
    ("message", "cure"),
    [
        (
            "Error occurred while DescribeSubnets. EC2 Error Code: InvalidSubnetID.NotFound. EC2 Error Message: The"
            " subnet ID 'subnet-0b' does not exist",
            "correct the subnets: the environment's settings step_subnets",
        ),
        (
            "Error occurred while DescribeSecurityGroups. EC2 Error Code: InvalidGroup.NotFound. EC2 Error Message: The"
            " security group 'sg-01' does not exist",
            "correct the security groups",
        ),
        (
            "Function code combined with layers exceeds the maximum allowed size of 262144000 bytes",
            "make either smaller",
        ),
    ],
)
def test_rejections_by_lambda_are_explained(network: Aws, write: Write, message: str, cure: str) -> None:
    error = refusal("InvalidParameterValueException", message, "CreateFunction")
    network.fail_once("CreateFunction", error)
    with pytest.raises(NotUsable, match=cure) as refused:
        network.push(in_vpc(write))
    assert message in str(refused.value)


# --- waiting for Lambda ----------------------------------------------------------------------------------------------


def test_a_push_waits_until_lambda_has_made_the_network_interfaces(network: Aws, write: Write) -> None:
    watcher = Lines()

    def sleep(seconds: float) -> None:
        network.slept.append(seconds)
        if sum(network.slept) >= 40:
            backend(made(network)["FunctionName"]).state = "Active"

    set_on_create(network, "Pending")
    _, (registered,) = push(network, in_vpc(write), watcher, sleep)
    assert registered.version == 1
    assert watcher.lines == [
        "Lambda is creating network interfaces",
        "Lambda is creating network interfaces, 15 s so far",
        "Lambda is creating network interfaces, 30 s so far",
    ]


def test_a_push_waits_until_a_new_lambda_is_found(network: Aws, write: Write) -> None:
    gone = network.session.client("lambda").exceptions.ResourceNotFoundException
    error = gone({"Error": {"Code": "ResourceNotFoundException", "Message": "?"}}, "GetFunctionConfiguration")
    network.fail_once("GetFunctionConfiguration", error, after=1)  # the first request was before the creation
    _, (registered,) = network.push(in_vpc(write))
    assert (registered.version, network.slept) == (1, [1.0])


def test_a_lambda_that_is_never_ready_ends_the_push_and_nothing_is_live(network: Aws, write: Write) -> None:
    set_on_create(network, "Pending")
    with pytest.raises(NotUsable, match="not ready after 10 minutes; push again later"):
        network.push(in_vpc(write))
    assert Registry(network.resources).functions() == []


def test_the_next_push_waits_for_what_an_interrupted_one_left_unfinished(network: Aws, write: Write) -> None:
    folder = in_vpc(write)
    set_on_create(network, "Pending")
    with pytest.raises(NotUsable):
        network.push(folder)
    actions, _ = network.push(folder, dry_run=True)
    assert [a.detail for a in actions if a.kind == "lambda"] == ["activation, destinations, recursion"]
    backend(made(network)["FunctionName"]).state = "Active"
    _, (registered,) = network.push(folder)
    assert registered.is_new


def test_a_failed_creation_is_explained_and_repeated_by_the_next_push(network: Aws, write: Write) -> None:
    folder = in_vpc(write)
    network.session.events.register("after-call.lambda.GetFunctionConfiguration", fail_for_want_of_addresses)
    with pytest.raises(NotUsable, match=r"SubnetOutOfIPAddresses: no addresses; free addresses in the subnets"):
        network.push(folder)
    with pytest.raises(NotUsable):
        network.push(folder)
    assert network.writes["DeleteFunction"] == 1  # a failed creation is final in Lambda
    network.session.events.unregister("after-call.lambda.GetFunctionConfiguration", fail_for_want_of_addresses)
    _, (registered,) = network.push(folder)
    assert registered.is_new


def test_a_failed_update_is_explained(network: Aws, write: Write) -> None:
    folder = in_vpc(write)
    network.push(folder)
    network.resources = replace(network.resources, step_subnets=("subnet-0c",))
    network.session.events.register("after-call.lambda.GetFunctionConfiguration", fail_to_update)
    with pytest.raises(NotUsable, match=r"InvalidSubnet: no such subnet; correct the subnets"):
        network.push(folder)
    network.session.events.unregister("after-call.lambda.GetFunctionConfiguration", fail_to_update)


def fail_for_want_of_addresses(parsed: Any, **_: Any) -> None:
    if "State" in parsed:
        parsed |= {"State": "Failed", "StateReason": "no addresses.", "StateReasonCode": "SubnetOutOfIPAddresses"}


def fail_to_update(parsed: Any, **_: Any) -> None:
    parsed |= {"LastUpdateStatus": "Failed", "LastUpdateStatusReason": "no such subnet"}
    parsed |= {"LastUpdateStatusReasonCode": "InvalidSubnet"}


def set_on_create(aws: Aws, state: str) -> None:
    """Gives every new function this state, until it gets another."""

    def change(parsed: Any, **_: Any) -> None:
        if "FunctionName" in parsed:
            backend(parsed["FunctionName"]).state = state

    aws.session.events.register("after-call.lambda.CreateFunction", change)


def push(aws: Aws, folder: Path, watcher: Any, sleep: Callable[[float], None]) -> Any:
    from stepwell.aws.deploy.push import Push
    from stepwell.aws.deploy.wanted import wanted
    from stepwell.project.load import load_all

    functions, _ = load_all([folder])
    items = wanted(functions, aws.resources)
    pushing = Push(aws.resources, aws.account(), watcher, sleep=sleep)
    found, actions = pushing.plan(items)
    return actions, pushing.apply(items, found, actions)
