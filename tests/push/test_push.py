"""A push makes functions live, repeats no work, and can be repeated after any interruption."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from rich.console import Console

from stepwell.aws.deploy.actions import Action
from stepwell.aws.deploy.plan import MissingSecrets
from stepwell.aws.deploy.push import NoLambda
from stepwell.aws.deploy.roles import trust
from stepwell.aws.deploy.step_lambdas import DestinationInUse
from stepwell.aws.deploy.values import put_parameter
from stepwell.aws.functions.registry import Registry
from stepwell.aws.functions.releases import Releases
from stepwell.aws.table.items import read_partition
from stepwell.cli.ui.progress import Bars
from tests.push.conftest import Aws, Silent, refusal

Write = Callable[..., Path]
TWO = {
    "one": {"path": "file://./one"},
    "two": {
        "path": "file://./two",
        "runtime": {"type": "lambda", "handler": "app.handler"},
        "after": [{"step": "one"}],
    },
}
SECONDS = count(0, 10)  # a clock that runs so fast that caches are always expired
TWO_FILES = {"one/main.py": "print(1)\n", "two/app.js": "exports.handler = async () => 2\n"}


def live(aws: Aws, function_id: str = "f") -> Any:
    registry = Registry(aws.resources)
    number = next(row.live for row in registry.functions() if row.id == function_id)
    assert number is not None
    return registry.version(function_id, number)


def lambdas(aws: Aws) -> dict[str, Any]:
    found = aws.session.client("lambda").list_functions()["Functions"]
    return {function["FunctionName"]: function for function in found}


def kinds(actions: list[Any]) -> list[str]:
    return sorted(f"{action.verb} {action.kind}" for action in actions)


def test_a_push_makes_a_lambda_for_every_step_and_then_the_version(aws: Aws, write: Write) -> None:
    actions, (registered,) = aws.push(write(steps=TWO, files=TWO_FILES))
    assert (registered.function_id, registered.version, registered.is_new) == ("f", 1, True)
    targets = live(aws).targets
    made = lambdas(aws)
    assert {target["lambda"] for target in targets.values()} == made.keys()
    one, two = made[targets["one"]["lambda"]], made[targets["two"]["lambda"]]
    assert (one["Runtime"], one["Timeout"], one["Architectures"]) == ("python3.13", 900, ["arm64"])
    assert one["Environment"]["Variables"] == {
        "STEPWELL_COMMAND": '["python3","main.py"]',
        "STEPWELL_TIMEOUT_MS": "900000",
        "AWS_LAMBDA_EXEC_WRAPPER": "/opt/bootstrap",
    }
    for made_one in (one, two):
        assert [layer["Arn"] for layer in made_one["Layers"]] == [aws.resources.layers["arm64"]]
    assert (two["Runtime"], two["Handler"]) == ("nodejs22.x", "app.handler")
    assert two["Environment"]["Variables"] == {
        "STEPWELL_TIMEOUT_MS": "900000",
        "AWS_LAMBDA_EXEC_WRAPPER": "/opt/bootstrap",
    }
    assert kinds(actions) == [
        "create function",
        "create lambda",
        "create lambda",
        "create log group",
        "create log group",
        "create role",
        "upload code",
        "upload code",
    ]


def test_lambdas_have_no_retries_send_results_to_outcomes_and_allow_recursion(aws: Aws, write: Write) -> None:
    aws.push(write())
    (name,) = lambdas(aws)
    config = aws.session.client("lambda").get_function_event_invoke_config(FunctionName=name)
    queue = {"Destination": aws.resources.outcomes_queue_arn}
    assert config["DestinationConfig"] == {"OnSuccess": queue, "OnFailure": queue}
    assert (config["MaximumRetryAttempts"], config["MaximumEventAgeInSeconds"]) == (0, 3600)
    assert aws.recursion == {name: "Allow"}
    (group,) = aws.session.client("logs").describe_log_groups()["logGroups"]
    assert (group["logGroupName"], group["retentionInDays"]) == (f"/aws/lambda/{name}", 30)
    tags = aws.session.client("lambda").list_tags(Resource=lambdas(aws)[name]["FunctionArn"])["Tags"]
    assert tags["stepwell:env"] == "dev"
    assert tags["stepwell:function"] == "f"
    assert name.endswith(tags["stepwell:hash"])


def test_a_second_push_without_changes_does_nothing(aws: Aws, write: Write) -> None:
    folder = write(steps={**TWO, "three": {"runtime": {"type": "http", "url": "https://example.com"}}}, files=TWO_FILES)
    (folder / "one" / ".env").write_text("A=1\n")
    aws.push(folder)
    aws.calls.clear()
    actions, registered = aws.push(folder)
    assert (actions, registered) == ([], [])
    assert not aws.writes


def test_a_dry_run_changes_nothing(aws: Aws, write: Write) -> None:
    actions, _ = aws.push(write(steps=TWO, files=TWO_FILES), dry_run=True)
    assert len(actions) == 8
    assert not aws.writes


def test_only_the_step_whose_code_changed_gets_a_new_lambda(aws: Aws, write: Write) -> None:
    folder = write(steps=TWO, files=TWO_FILES)
    aws.push(folder)
    before = live(aws).targets
    (folder / "one" / "main.py").write_text("print(11)\n")
    actions, (registered,) = aws.push(folder)
    assert registered.version == 2
    after = live(aws).targets
    assert after["one"] != before["one"]
    assert after["two"] == before["two"]
    assert len(lambdas(aws)) == 3  # open runs of version 1 continue with this Lambda
    assert kinds(actions) == ["create lambda", "create log group", "update function", "upload code"]


def test_steps_with_equal_code_and_settings_share_a_lambda_and_one_upload(aws: Aws, write: Write) -> None:
    fields = {"path": "file://./x"}
    aws.push(write(steps={"a": fields, "b": fields, "c": {**fields, "timeout": "5s"}}, files={"x/main.py": ""}))
    targets = live(aws).targets
    assert targets["a"] == targets["b"] != targets["c"]
    assert aws.calls["PutObject"] == 1
    assert {function["Timeout"] for function in lambdas(aws).values()} == {900, 7}


def test_code_that_is_in_the_bucket_is_not_uploaded_again(aws: Aws, write: Write) -> None:
    folder = write(steps={"s": {"path": "file://./s"}}, files={"s/main.py": ""})
    aws.push(folder)
    aws.calls.clear()
    write(steps={"s": {"path": "file://./s", "timeout": "1s"}}, files={"s/main.py": ""})
    actions, _ = aws.push(folder)
    assert "create lambda" in kinds(actions)
    assert aws.calls["PutObject"] == 0


# --- values ----------------------------------------------------------------------------------------------------------


def test_a_changed_env_file_updates_the_configuration_and_makes_no_version(aws: Aws, write: Write) -> None:
    folder = write(steps=TWO, files=TWO_FILES)
    (folder / "one" / ".env").write_text("TOKEN=first\n")
    aws.push(folder)
    before = lambdas(aws)
    aws.calls.clear()
    (folder / "one" / ".env").write_text("TOKEN=second\n")
    actions, registered = aws.push(folder)
    assert kinds(actions) == ["update lambda", "update parameter"]
    assert not registered
    assert aws.writes == {"PutParameter": 1, "UpdateFunctionConfiguration": 1}
    (changed,) = [name for name, item in lambdas(aws).items() if item["Environment"] != before[name]["Environment"]]
    assert changed == live(aws).targets["one"]["lambda"]
    name = "/stepwell/dev/dotenv/f/one"
    stored = aws.session.client("ssm").get_parameter(Name=name, WithDecryption=True)["Parameter"]
    assert (stored["Type"], json.loads(stored["Value"])) == ("SecureString", {"TOKEN": "second"})
    assert aws.push(folder) == ([], [])


def test_no_value_is_in_the_environment_of_a_lambda(aws: Aws, write: Write) -> None:
    put_parameter(aws.account().ssm, aws.resources, "/stepwell/dev/secrets/KEY", "sesame")
    folder = write(steps={"one": {"path": "file://./one", "secrets": ["KEY"], "env": {"PLAIN": "p"}}}, files=TWO_FILES)
    (folder / "one" / ".env").write_text("TOKEN=hidden\n")
    aws.push(folder)
    (made,) = lambdas(aws).values()
    variables = made["Environment"]["Variables"]
    assert variables["PLAIN"] == "p"
    assert json.loads(variables["STEPWELL_VALUES"]) == {
        "dotenv": "/stepwell/dev/dotenv/f/one",
        "secrets": {"KEY": "/stepwell/dev/secrets/KEY"},
    }
    assert not {"hidden", "sesame"} & set("".join(variables.values()).split())
    assert "hidden" not in json.dumps(variables)
    assert aws.push(folder) == ([], [])


def test_native_handlers_run_with_the_adapter_as_wrapper(aws: Aws, write: Write) -> None:
    folder = write(steps={"two": TWO["two"] | {"after": []}}, files=TWO_FILES)
    (folder / "two" / ".env").write_text("A=1\n")
    aws.push(folder)
    (made,) = lambdas(aws).values()
    assert made["Environment"]["Variables"]["AWS_LAMBDA_EXEC_WRAPPER"] == "/opt/bootstrap"
    assert "STEPWELL_COMMAND" not in made["Environment"]["Variables"]
    assert made["Layers"]


def test_a_secret_that_is_not_set_is_refused_before_anything_is_made(aws: Aws, write: Write) -> None:
    with pytest.raises(MissingSecrets, match="stepwell secrets set KEY --env dev"):
        aws.push(write(steps={"a": {"path": "file://.", "secrets": ["KEY"]}}))
    assert not aws.writes


def test_an_http_step_gets_its_dotenv_and_secrets_too(aws: Aws, write: Write) -> None:
    web = {"path": "file://web", "secrets": ["KEY"], "runtime": {"type": "http", "url": "https://example.com"}}
    folder = write(steps={"a": web}, files={"web/readme.txt": "", "web/.env": "A=1\n"})
    with pytest.raises(MissingSecrets, match="stepwell secrets set KEY --env dev"):
        aws.push(folder)
    put_parameter(aws.account().ssm, aws.resources, "/stepwell/dev/secrets/KEY", "v")
    actions, _ = aws.push(folder)
    assert kinds(actions) == ["create function", "create parameter"]
    found = aws.account().ssm.get_parameter(Name="/stepwell/dev/dotenv/f/a", WithDecryption=True)
    assert json.loads(found["Parameter"]["Value"]) == {"A": "1"}


# --- roles -----------------------------------------------------------------------------------------------------------


def test_a_role_allows_only_the_function_s_own_resources(aws: Aws, write: Write) -> None:
    put_parameter(aws.account().ssm, aws.resources, "/stepwell/dev/secrets/KEY", "v")
    aws.push(write(steps={"a": {"path": "file://.", "secrets": ["KEY"]}}))
    iam = aws.session.client("iam")
    document = iam.get_role_policy(RoleName="stepwell-dev-step-f", PolicyName="stepwell")["PolicyDocument"]
    allowed = {statement["Sid"]: (statement["Action"], statement["Resource"]) for statement in document["Statement"]}
    at = "eu-central-1:123456789012"
    assert allowed == {
        "Outcomes": ("sqs:SendMessage", f"arn:aws:sqs:{at}:stepwell-dev-outcomes"),
        "Logs": (
            ["logs:CreateLogStream", "logs:PutLogEvents"],
            f"arn:aws:logs:{at}:log-group:/aws/lambda/stepwell-dev-f-{'?' * 12}:*",
        ),
        "Values": (
            "ssm:GetParameters",
            [
                f"arn:aws:ssm:{at}:parameter/stepwell/dev/secrets/KEY",
            ],
        ),
    }


def test_a_role_can_be_assumed_for_this_account_only(aws: Aws, write: Write) -> None:
    aws.push(write())
    role = aws.session.client("iam").get_role(RoleName="stepwell-dev-step-f")["Role"]
    (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}


def test_a_push_corrects_a_role_with_a_wider_trust(aws: Aws, write: Write) -> None:
    """Roles from older versions of Stepwell have a wider trust."""
    aws.push(write())
    iam = aws.session.client("iam")
    document = trust("123456789012")
    del document["Statement"][0]["Condition"]
    iam.update_assume_role_policy(RoleName="stepwell-dev-step-f", PolicyDocument=json.dumps(document))
    assert kinds(aws.push(write())[0]) == ["update role"]
    role = iam.get_role(RoleName="stepwell-dev-step-f")["Role"]
    assert role["AssumeRolePolicyDocument"] == trust("123456789012")
    assert aws.push(write())[0] == []


def test_a_secret_that_only_an_older_version_needs_stays_allowed(aws: Aws, write: Write) -> None:
    put_parameter(aws.account().ssm, aws.resources, "/stepwell/dev/secrets/KEY", "v")
    aws.push(write(steps={"a": {"path": "file://.", "secrets": ["KEY"]}}))
    folder = write(steps={"a": {"path": "file://."}})
    actions, _ = aws.push(folder)
    assert "update role" not in kinds(actions)
    policy = aws.session.client("iam").get_role_policy(RoleName="stepwell-dev-step-f", PolicyName="stepwell")
    assert "secrets/KEY" in json.dumps(policy["PolicyDocument"])
    assert aws.push(folder) == ([], [])


def test_permissions_that_only_an_older_version_needs_stay_allowed(aws: Aws, write: Write) -> None:
    aws.resources = replace(aws.resources, cluster="containers", adapter_images={"x86_64": "adapter:1"})
    aws.push(write(steps={"a": {"path": "file://."}}))
    runtime = {"type": "docker", "image": "127.0.0.1:1/tool:1", "entrypoint": ["/tool"]}
    folder = write(steps={"a": {"runtime": runtime}})
    aws.push(folder)
    policy = aws.session.client("iam").get_role_policy(RoleName="stepwell-dev-step-f", PolicyName="stepwell")
    assert [item["Sid"] for item in policy["PolicyDocument"]["Statement"]] == ["Containers", "Outcomes", "Logs"]
    assert aws.push(folder) == ([], [])


# --- failures --------------------------------------------------------------------------------------------------------


def test_a_push_waits_until_lambda_knows_a_new_role(aws: Aws, write: Write) -> None:
    message = "The role defined for the function cannot be assumed by Lambda."
    aws.fail_once("CreateFunction", refusal("InvalidParameterValueException", message, "CreateFunction"))
    message = "The function's execution role does not have permissions to call SendMessage on the queue"
    operation = "PutFunctionEventInvokeConfig"
    aws.fail_once(operation, refusal("InvalidParameterValueException", message, operation))
    _, (registered,) = aws.push(write())
    assert registered.version == 1
    assert aws.slept == [0.5, 0.5]


def test_a_role_that_stays_unusable_is_an_error(aws: Aws, write: Write) -> None:
    error = refusal("InvalidParameterValueException", "The role cannot be assumed by Lambda.", "CreateFunction")
    for _ in range(50):
        aws.fail_once("CreateFunction", error)
    with pytest.raises(ClientError, match="cannot be assumed"):
        aws.push(write())
    assert 60 <= sum(aws.slept) <= 66


@pytest.mark.parametrize(
    "operation",
    [
        "PutParameter",
        "CreateRole",
        "PutRolePolicy",
        "CreateLogGroup",
        "PutRetentionPolicy",
        "PutObject",
        "CreateFunction",
        "PutFunctionEventInvokeConfig",
        "PutFunctionRecursionConfig",
        "PutItem",
    ],
)
def test_an_interrupted_push_can_be_repeated(aws: Aws, write: Write, operation: str) -> None:
    folder = write(steps=TWO, files=TWO_FILES)
    (folder / "one" / ".env").write_text("A=1\n")
    aws.fail_once(operation, KeyError("interrupted"))
    with pytest.raises(KeyError, match="interrupted"):
        aws.push(folder)
    assert [row for row in Registry(aws.resources).functions() if row.live] == []
    _, (registered,) = aws.push(folder)
    assert (registered.version, registered.is_new) == (1, True)
    assert len(lambdas(aws)) == 2
    assert set(aws.recursion.values()) == {"Allow"}
    assert aws.push(folder) == ([], [])


@pytest.mark.parametrize(
    ("operation", "nth"),
    [
        ("PutItem", 0),  # the version
        ("PutItem", 1),  # the live version
        ("BatchWriteItem", 0),  # the cron triggers
        ("PutItem", 2),  # the counter by which routers notice changes
        ("UpdateItem", 0),  # marks the release as complete
    ],
)
def test_the_next_push_completes_one_that_was_interrupted_while_going_live(
    aws: Aws, write: Write, operation: str, nth: int
) -> None:
    warm = Registry(aws.resources, clock=lambda: next(SECONDS))
    assert not warm.catalog().live
    folder = write(triggers=[{"event": "go"}, {"cron": "0 9 * * *"}])
    aws.fail_once(operation, KeyError("interrupted"), after=nth)
    with pytest.raises(KeyError):
        aws.push(folder)
    _, (registered,) = aws.push(folder)
    assert registered.version == 1
    assert list(warm.catalog().live) == ["f"]
    due = read_partition(aws.resources.table, "C")
    assert [item["sk"]["S"] for item in due] == ["f#0 9 * * *#UTC"]
    assert aws.push(folder) == ([], [])


def test_the_next_retirement_completes_an_interrupted_one(aws: Aws, write: Write) -> None:
    aws.push(write())
    warm = Registry(aws.resources, clock=lambda: next(SECONDS))
    assert list(warm.catalog().live) == ["f"]
    aws.fail_once("PutItem", RuntimeError("interrupted"), after=1)  # the counter by which routers notice changes
    with pytest.raises(RuntimeError, match="interrupted"):
        Releases(aws.resources).retire(["f"])
    (row,) = Registry(aws.resources).functions()
    assert (row.live, row.pending) == (None, True)
    Releases(aws.resources).retire(["f"])
    assert not warm.catalog().live
    (row,) = Registry(aws.resources).functions()
    assert (row.live, row.pending) == (None, False)


class Noting(Silent):
    """A watcher that records which actions begin and end."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []

    def begin(self, action: Action) -> None:
        self.begun.append(f"{action.verb} {action.kind}")

    def end(self, action: Action) -> None:
        self.ended.append(f"{action.verb} {action.kind}")


def test_every_action_of_a_push_is_shown_to_begin_and_to_end(aws: Aws, write: Write) -> None:
    watcher = Noting()
    actions, _ = aws.push(write("f"), write("g"), watcher=watcher)
    assert sorted(watcher.begun) == sorted(watcher.ended) == kinds(actions)


def test_functions_with_the_same_code_share_it_and_show_their_progress(aws: Aws, write: Write) -> None:
    step = {"steps": {"one": {"path": "file://./one"}}, "files": {"one/main.py": "print(1)\n"}}
    with Bars(Console(file=io.StringIO(), force_terminal=True)) as bars:
        actions, registered = aws.push(write("f", **step), write("g", **step), watcher=bars)
    assert kinds(actions).count("upload code") == 1
    assert [one.function_id for one in registered] == ["f", "g"]


def test_completed_actions_of_an_interrupted_push_are_not_repeated(aws: Aws, write: Write) -> None:
    folder = write(steps=TWO, files=TWO_FILES)
    aws.fail_once("CreateFunction", KeyError("interrupted"))
    with pytest.raises(KeyError):
        aws.push(folder)
    aws.calls.clear()
    actions, _ = aws.push(folder)
    assert kinds(actions) == ["create function", "create lambda"]
    assert aws.calls["PutObject"] + aws.calls["CreateRole"] + aws.calls["CreateLogGroup"] == 0


def test_a_new_layer_updates_the_lambdas_and_makes_no_version(aws: Aws, write: Write) -> None:
    folder = write()
    aws.push(folder)
    layer = aws.session.client("lambda").publish_layer_version(
        LayerName="adapter-arm64", Content={"ZipFile": b"newer"}
    )["LayerVersionArn"]
    aws.resources.layers["arm64"] = layer
    actions, registered = aws.push(folder)
    assert [(action.kind, action.detail) for action in actions] == [("lambda", "configuration")]
    assert not registered
    (made,) = lambdas(aws).values()
    assert [layer["Arn"] for layer in made["Layers"]] == [layer]
    assert aws.push(folder) == ([], [])


# --- waits -----------------------------------------------------------------------------------------------------------


def waiting(match: str) -> dict[str, Any]:
    edge = {"step": "$trigger", "async": {"event": "paid", "match": match, "ttl": "1h"}}
    return {"a": {"path": "file://./a", "after": [edge]}}


def test_every_router_knows_new_wait_paths_before_the_version_goes_live(aws: Aws, write: Write) -> None:
    files = {"a/main.py": ""}
    folder = write(steps=waiting("async.data.id == event.data.id"), files=files)
    aws.push(folder)
    assert aws.slept == [aws.resources.cache_s + 1]
    (folder / "a" / "main.py").write_text("1")
    aws.push(folder)
    assert len(aws.slept) == 1  # these paths were known already
    aws.push(write(steps=waiting("async.data.order == event.data.id"), files=files))
    assert len(aws.slept) == 2


# --- Lambdas given by ARN --------------------------------------------------------------------------------------------


def foreign(aws: Aws, write: Write) -> tuple[str, Path]:
    iam = aws.session.client("iam")
    role = iam.create_role(RoleName="theirs", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    made = aws.session.client("lambda").create_function(
        FunctionName="crm", Runtime="python3.13", Role=role, Handler="a.b", Code={"ZipFile": b"x"}
    )
    arn = made["FunctionArn"]
    return arn, write(steps={"a": {"runtime": {"type": "lambda", "arn": arn}}})


def test_only_the_destinations_of_a_lambda_named_by_arn_are_changed(aws: Aws, write: Write) -> None:
    arn, folder = foreign(aws, write)
    aws.calls.clear()
    aws.push(folder)
    assert live(aws).targets == {"a": {"lambda": arn}}
    config = aws.session.client("lambda").get_function_event_invoke_config(FunctionName="crm")
    assert config["DestinationConfig"]["OnSuccess"]["Destination"] == aws.resources.outcomes_queue_arn
    assert set(aws.writes) == {"PutFunctionEventInvokeConfig", "PutFunctionRecursionConfig", "PutItem", "UpdateItem"}
    assert aws.push(folder) == ([], [])


def test_a_lambda_with_another_destination_is_refused(aws: Aws, write: Write) -> None:
    _, folder = foreign(aws, write)
    other = {"OnSuccess": {"Destination": "arn:aws:sqs:eu-central-1:123456789012:theirs"}}
    aws.session.client("lambda").put_function_event_invoke_config(FunctionName="crm", DestinationConfig=other)
    with pytest.raises(DestinationInUse, match="theirs"):
        aws.push(folder)


def test_a_missing_lambda_is_refused(aws: Aws, write: Write) -> None:
    arn = "arn:aws:lambda:eu-central-1:123456789012:function:gone"
    with pytest.raises(NoLambda, match="gone"):
        aws.push(write(steps={"a": {"runtime": {"type": "lambda", "arn": arn}}}))


# --- containers ------------------------------------------------------------------------------------------------------


def test_a_docker_step_gets_a_task_definition_and_its_role_reads_the_bucket(aws: Aws, write: Write) -> None:
    cluster = "arn:aws:ecs:eu-central-1:123456789012:cluster/dev"
    aws.resources = replace(
        aws.resources,
        cluster=cluster,
        execution_role="arn:aws:iam::123456789012:role/x",
        adapter_images={"x86_64": "adapter:1"},
    )
    runtime = {"type": "docker", "image": "127.0.0.1:1/tool:1", "entrypoint": ["/tool"]}
    folder = write(steps={"a": {"runtime": runtime, "env": {"AB": "1"}}})
    actions, _ = aws.push(folder)
    assert kinds(actions) == ["create function", "create log group", "create role", "create task definition"]
    target = live(aws).targets["a"]
    task = aws.session.client("ecs").describe_task_definition(taskDefinition=target["ecs"])["taskDefinition"]
    assert task["taskRoleArn"] == "arn:aws:iam::123456789012:role/stepwell-dev-step-f"
    policy = aws.session.client("iam").get_role_policy(RoleName="stepwell-dev-step-f", PolicyName="stepwell")
    assert "arn:aws:s3:::stepwell-dev-code/inputs/*" in json.dumps(policy["PolicyDocument"])
    assert aws.push(folder) == ([], [])
    write(steps={"a": {"runtime": runtime, "env": {"AB": "2"}}})
    actions, _ = aws.push(folder)
    assert kinds(actions) == ["create task definition", "update function"]
    assert live(aws).targets["a"]["ecs"] != target["ecs"]
