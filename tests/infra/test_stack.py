"""Properties of the infrastructure that hold for all settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import cdk_nag
import pytest
from aws_cdk import aws_sqs as sqs

from infra.ingest import LOGGED
from infra.roles import READ_KEYS
from infra.state import INPUTS
from stepwell.aws.queues.redelivery import LATEST_S, MAX_RECEIVES
from stepwell.aws.resources import VARIABLE, Resources
from stepwell.aws.steps.containers import FOLDER
from stepwell.aws.topology import FUNCTIONS, EngineInvocation, Queue, Schedule, server
from tests.infra.conftest import Synth

ENVIRONMENTS = ("dev", "all", "bare")
every_environment = pytest.mark.parametrize("env", ENVIRONMENTS)


def functions(synth: Synth, env: str) -> dict[str, dict[str, Any]]:
    """The engine's Lambdas by name, without CDK's own."""
    found = synth.resources(env, "AWS::Lambda::Function").values()
    handlers = {function.name: f"lambdas.{function.name}.handler" for function in FUNCTIONS}
    return {name: item for name, handler in handlers.items() for item in found if item["Handler"] == handler}


def text(value: Any) -> str:
    return json.dumps(value)


def references(value: Any) -> set[str]:
    """The logical ids that a value refers to."""
    if isinstance(value, dict):
        if "Ref" in value:
            return {value["Ref"]}
        if "Fn::GetAtt" in value:
            return {value["Fn::GetAtt"][0]}
        return {name for item in value.values() for name in references(item)}
    if isinstance(value, list):
        return {name for item in value for name in references(item)}
    return set()


# --- linters ----------------------------------------------------------------------------------------------------------


def test_cdk_nag_finds_nothing(synth: Synth) -> None:
    assert synth.report["pluginReports"] == []


def test_cdk_nag_would_find_something(tmp_path: Path) -> None:
    app = cdk.App(outdir=str(tmp_path))
    sqs.Queue(cdk.Stack(app, "Stack"), "Queue")
    cdk.Validations.of(app).add_plugins(cdk_nag.AwsSolutionsChecks(app))
    with pytest.raises(RuntimeError, match="SQS3"):
        app.synth()


@every_environment
def test_cfn_lint_finds_nothing(synth: Synth, env: str) -> None:
    from cfnlint.api import ManualArgs, lint  # a slow import that only this test needs

    template = (synth.folder / f"Stepwell-{env}.template.json").read_text()
    # W3005: a DependsOn that CDK writes though a reference implies it.
    assert lint(template, config=ManualArgs(ignore_checks=["W3005"], regions=["us-east-1"])) == []


# --- queues -----------------------------------------------------------------------------------------------------------


@every_environment
def test_every_queue_has_dead_letters_and_time_to_handle_a_batch(synth: Synth, env: str) -> None:
    queues = synth.resources(env, "AWS::SQS::Queue")
    dead_letters = {name for queue in queues.values() for name in references(queue.get("RedrivePolicy", {}))}
    assert len(dead_letters) == 2
    for name, item in queues.items():
        if key := synth.settings[env].kms_key:
            assert item["KmsMasterKeyId"] == key
        else:
            assert item["SqsManagedSseEnabled"] is True
        if name not in dead_letters:
            assert item["RedrivePolicy"]["maxReceiveCount"] == MAX_RECEIVES
            assert item["VisibilityTimeout"] == LATEST_S + synth.settings[env].batching_window
    for mapping in synth.resources(env, "AWS::Lambda::EventSourceMapping").values():
        (queue,), (function,) = references(mapping["EventSourceArn"]), references(mapping["FunctionName"])
        timeout = synth.resources(env, "AWS::Lambda::Function")[function]["Timeout"]
        assert mapping["MaximumBatchingWindowInSeconds"] == synth.settings[env].batching_window
        assert queues[queue]["VisibilityTimeout"] == 6 * timeout + mapping["MaximumBatchingWindowInSeconds"]


@every_environment
def test_queues_and_buckets_require_tls(synth: Synth, env: str) -> None:
    def refused_without_tls(kind: str) -> set[str]:
        return {
            name
            for policy in synth.resources(env, kind).values()
            for statement in policy["PolicyDocument"]["Statement"]
            if statement["Effect"] == "Deny" and "aws:SecureTransport" in text(statement["Condition"])
            for name in references(statement["Resource"])
        }

    assert refused_without_tls("AWS::SQS::QueuePolicy") == set(synth.resources(env, "AWS::SQS::Queue"))
    assert refused_without_tls("AWS::S3::BucketPolicy") == set(synth.resources(env, "AWS::S3::Bucket"))


@every_environment
def test_rules_send_to_queues_and_never_to_lambdas(synth: Synth, env: str) -> None:
    queues = set(synth.resources(env, "AWS::SQS::Queue"))
    rules = [resource for resource in synth.resources(env, "AWS::Events::Rule").values() if "EventPattern" in resource]
    archive = [rule for rule in rules if "replay-name" in text(rule["EventPattern"])]  # CDK's own, for its archive
    own_rules = [rule for rule in rules if rule not in archive]
    assert len(own_rules) == (2 if synth.settings[env].has_containers else 1)
    for rule in own_rules:
        for target in rule["Targets"]:
            assert references(target["Arn"]) <= queues
            assert references(target["DeadLetterConfig"]["Arn"]) <= queues


def test_only_stopped_tasks_of_the_environment_s_cluster_reach_outcomes(synth: Synth) -> None:
    (pattern,) = [
        resource["EventPattern"]
        for resource in synth.resources("all", "AWS::Events::Rule").values()
        if resource.get("EventPattern", {}).get("source") == ["aws.ecs"]
    ]
    (cluster,) = synth.resources("all", "AWS::ECS::Cluster")
    assert pattern["detail"]["lastStatus"] == ["STOPPED"]
    assert references(pattern["detail"]["clusterArn"]) == {cluster}


# --- Lambdas ----------------------------------------------------------------------------------------------------------


@every_environment
def test_lambda_does_not_stop_the_engine_s_loop(synth: Synth, env: str) -> None:
    allowed = {name for name, item in functions(synth, env).items() if item.get("RecursiveLoop") == "Allow"}
    assert allowed == {function.name for function in FUNCTIONS}


@every_environment
def test_triggers_match_the_topology(synth: Synth, env: str) -> None:
    def ids(kind: str, name: str) -> dict[str, set[str]]:
        return {id: references(item[name]) for id, item in synth.resources(env, kind).items() if name in item}

    of = {id: name for id, item in synth.resources(env, "AWS::Lambda::Function").items()
          for name in [item["Handler"].removeprefix("lambdas.").removesuffix(".handler")]}  # fmt: skip
    queues = {
        of[function]: queue
        for resource in synth.resources(env, "AWS::Lambda::EventSourceMapping").values()
        for function in references(resource["FunctionName"])
        for queue in references(resource["EventSourceArn"])
    }
    schedules = {
        of[function]: resource["ScheduleExpression"]
        for resource in synth.resources(env, "AWS::Events::Rule").values()
        if "ScheduleExpression" in resource
        for function in references(resource["Targets"])
    }
    invoked = {of[id] for found in ids("AWS::Lambda::EventInvokeConfig", "FunctionName").values() for id in found}
    for item in FUNCTIONS:
        match item.trigger:
            case Queue(name):
                assert name.capitalize() in queues.pop(item.name)
            case Schedule(minutes):
                assert schedules.pop(item.name) == f"rate({minutes} minute)"
            case EngineInvocation():
                assert item.name in invoked
    assert (queues, schedules) == ({}, {})


def test_each_request_is_routed_to_one_lambda() -> None:
    asked = [
        ("POST", "/e"),
        ("POST", "/e/key"),
        ("OPTIONS", "/e/key"),
        ("POST", "/e/"),
        ("POST", "/e/key/"),
        ("POST", "/webhooks/github"),
        ("POST", "/webhooks/github/"),
        ("GET", "/webhooks/github"),
        ("HEAD", "/webhooks/github"),
        ("GET", "/e"),
        ("DELETE", "/e"),
        ("POST", "/events"),
        ("GET", "/"),
    ]
    assert [server(*pair).name for pair in asked] == [*["ingest"] * 10, "api", "api", "api"]


@every_environment
def test_event_source_mappings_allow_partial_failures_and_limit_instances(synth: Synth, env: str) -> None:
    mappings = synth.resources(env, "AWS::Lambda::EventSourceMapping").values()
    assert len(mappings) == 2
    for mapping in mappings:
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        assert mapping["BatchSize"] == 10
        assert mapping["ScalingConfig"]["MaximumConcurrency"] >= 2


@every_environment
def test_an_http_step_is_retried_by_the_engine_alone(synth: Synth, env: str) -> None:
    (config,) = [
        resource
        for resource in synth.resources(env, "AWS::Lambda::EventInvokeConfig").values()
        if "OnSuccess" in resource.get("DestinationConfig", {})
    ]
    queue = references(config["DestinationConfig"]["OnSuccess"]["Destination"])
    assert config["MaximumRetryAttempts"] == 0
    assert config["MaximumEventAgeInSeconds"] == synth.settings[env].event_age_s
    assert references(config["DestinationConfig"]["OnFailure"]["Destination"]) == queue
    assert queue <= set(synth.resources(env, "AWS::SQS::Queue"))


@every_environment
def test_every_lambda_receives_the_environment_s_resources(synth: Synth, env: str) -> None:
    for name, item in functions(synth, env).items():
        known = resources(item["Environment"]["Variables"][VARIABLE])
        assert known.env == env
        assert known.table.startswith("<")
        assert bool(known.step_http) is (name != "step_http")
        assert known.api_url  # the base of approval links


@every_environment
def test_commands_find_everything_in_one_parameter(synth: Synth, env: str) -> None:
    parameters = {
        resource["Name"]: resource["Value"] for resource in synth.resources(env, "AWS::SSM::Parameter").values()
    }
    of_stacks = {name for name in parameters if "/steps/" in name or "/sources/" in name}  # see test_environment.py
    assert set(parameters) - of_stacks == {
        f"/stepwell/{env}/{name}" for name in ("resources", "bus", "registrar", "push")
    }
    known = resources(parameters[f"/stepwell/{env}/resources"])
    missing = {name for name in Resources.__dataclass_fields__ if not getattr(known, name)}
    without_containers = {"cluster", "subnets", "security_groups", "execution_role", "adapter_images", "repository"}
    if env == "all":
        assert missing == {"step_boundary"}  # the account has a boundary
    else:
        unset = {
            "permissions_boundary",
            "kms_key",
            "step_subnets",
            "step_security_groups",
            "tracing",
            "step_concurrency",
        }
        assert missing == {*without_containers, *unset}


def test_containers_have_adapters_for_both_processors_and_can_run_on_spot(synth: Synth) -> None:
    found = {}
    for env in ("dev", "all"):
        parameters = {
            resource["Name"]: resource["Value"] for resource in synth.resources(env, "AWS::SSM::Parameter").values()
        }
        found[env] = resources(parameters[f"/stepwell/{env}/resources"])
    assert (found["dev"].capacity, found["all"].capacity) == ("FARGATE", "FARGATE_SPOT")
    assert set(found["all"].adapter_images) == {"arm64", "x86_64"}
    (cluster,) = synth.resources("all", "AWS::ECS::Cluster").values()
    assert found["all"].capacity in cluster["CapacityProviders"]


def resources(value: Any) -> Resources:
    """The `Resources` in a template, with references as `<name>`."""
    if isinstance(value, dict):
        parts = value["Fn::Join"][1]
        value = "".join(part if isinstance(part, str) else f"<{'.'.join(references(part))}>" for part in parts)
    return Resources.from_json(value)


@every_environment
def test_names_differ_between_environments(synth: Synth, env: str) -> None:
    named = {
        "AWS::DynamoDB::Table": "TableName",
        "AWS::S3::Bucket": "BucketName",
        "AWS::SQS::Queue": "QueueName",
        "AWS::Lambda::Function": "FunctionName",
        "AWS::IAM::Role": "RoleName",
        "AWS::ECS::Cluster": "ClusterName",
        "AWS::SNS::Topic": "TopicName",
        "AWS::CloudWatch::Alarm": "AlarmName",
    }
    for kind, name in named.items():
        assert all(name not in resource for resource in synth.resources(env, kind).values()), kind


@every_environment
def test_there_are_no_step_functions(synth: Synth, env: str) -> None:
    kinds = {resource["Type"] for resource in synth.templates[env].to_json()["Resources"].values()}
    assert not {kind for kind in kinds if kind.startswith("AWS::StepFunctions")}


# --- the API ----------------------------------------------------------------------------------------------------------


@every_environment
def test_events_go_to_ingest_and_everything_else_to_the_api(synth: Synth, env: str) -> None:
    routes = synth.resources(env, "AWS::ApiGatewayV2::Route")
    integrations = synth.resources(env, "AWS::ApiGatewayV2::Integration")
    lambdas = synth.resources(env, "AWS::Lambda::Function")

    def handler(route: dict[str, Any]) -> str:
        (integration,) = references(route["Target"])
        (function,) = references(integrations[integration]["IntegrationUri"])
        return str(lambdas[function]["Handler"]).split(".")[1]

    paths = ("/e", "/e/{key+}", "/webhooks/{name+}")
    to_ingest = [f"{method} {path}" for path in paths for method in ("POST", "OPTIONS", "GET", "HEAD")]
    assert {route["RouteKey"]: handler(route) for route in routes.values()} == {
        **dict.fromkeys(to_ingest, "ingest"),
        "$default": "api",
    }


@every_environment
def test_no_key_can_reach_the_access_log(synth: Synth, env: str) -> None:
    (stage,) = synth.resources(env, "AWS::ApiGatewayV2::Stage").values()
    written = stage["AccessLogSettings"]["Format"]
    assert json.loads(written) == LOGGED
    for secret in ("path", "Path", "header", "query", "identity", "protocol"):
        assert secret not in written
    assert stage["StageName"] == "$default"
    assert stage["DefaultRouteSettings"]["ThrottlingRateLimit"] == synth.settings[env].throttle_rate


@every_environment
def test_all_stored_data_is_encrypted_with_the_kms_key(synth: Synth, env: str) -> None:
    names = {
        "AWS::DynamoDB::Table": "KMSMasterKeyId",
        "AWS::S3::Bucket": "KMSMasterKeyID",
        "AWS::SQS::Queue": "KmsMasterKeyId",
        "AWS::Logs::LogGroup": "KmsKeyId",
        "AWS::SNS::Topic": "KmsMasterKeyId",
        "AWS::ECR::Repository": "KmsKey",
    }
    key = synth.settings[env].kms_key
    for kind, name in names.items():
        for resource in synth.resources(env, kind).values():
            assert f'"{name}": "{key}"' in text(resource) if key else name not in text(resource), kind


# --- data -------------------------------------------------------------------------------------------------------------


@every_environment
def test_keep_data_retains_the_data_and_nothing_else(synth: Synth, env: str) -> None:
    kept = {
        resource["Type"]
        for resource in synth.templates[env].to_json()["Resources"].values()
        if resource.get("DeletionPolicy") in ("Retain", "RetainExceptOnCreate", "Snapshot")
    }
    data = {"AWS::DynamoDB::Table", "AWS::S3::Bucket", "Custom::StepwellSigningKeys"}
    assert kept == (data if synth.settings[env].keep_data else set())
    (table,) = synth.resources(env, "AWS::DynamoDB::Table").values()
    assert table["DeletionProtectionEnabled"] is synth.settings[env].keep_data


@every_environment
def test_signing_keys_are_created_before_their_users_and_the_old_key_is_deleted_after(synth: Synth, env: str) -> None:
    """Checks the order in which CloudFormation creates and updates resources. It deletes them in reverse order."""
    template = synth.templates[env].to_json()["Resources"]
    (keys,) = synth.resources(env, "Custom::StepwellSigningKeys")
    (secret,) = synth.resources(env, "Custom::StepwellSecretInTable")
    lambdas = {
        item["Properties"]["Handler"].split(".")[1]: name
        for name, item in template.items()
        if item["Type"] == "AWS::Lambda::Function" and item["Properties"]["Handler"].startswith("lambdas.")
    }
    signing = {lambdas[name] for name in READ_KEYS}
    before = {name: set(item.get("DependsOn", [])) for name, item in template.items()}
    register = {name for name in template if name.startswith("StepwellFunctionsregister")}
    assert register == before[keys]  # the Lambda, the role and the role's policies
    assert {name for name, needs in before.items() if keys in needs and name in lambdas.values()} == signing
    assert before[secret] >= signing
    assert template[keys]["Properties"] == {
        "ServiceToken": {"Fn::GetAtt": [lambdas["register"], "Arn"]},
        "Parameter": f"/stepwell/{env}/signing-keys",
        "KmsKey": synth.settings[env].kms_key,
    }


@every_environment
def test_the_table_is_what_the_engine_expects(synth: Synth, env: str) -> None:
    (table,) = synth.resources(env, "AWS::DynamoDB::Table").values()
    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert table["TimeToLiveSpecification"] == {"AttributeName": "ttl", "Enabled": True}
    (index,) = table["GlobalSecondaryIndexes"]
    keys = [key["AttributeName"] for key in index["KeySchema"]]
    assert (index["IndexName"], keys, index["Projection"]) == ("status", ["gk", "gs"], {"ProjectionType": "KEYS_ONLY"})
    recovery = table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"]
    assert recovery is synth.settings[env].point_in_time_recovery


@every_environment
def test_inputs_of_containers_expire(synth: Synth, env: str) -> None:
    (bucket,) = synth.resources(env, "AWS::S3::Bucket").values()
    assert f"{FOLDER}/" == INPUTS
    assert any(
        rule.get("Prefix") == INPUTS and rule["ExpirationInDays"] for rule in bucket["LifecycleConfiguration"]["Rules"]
    )
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}


@every_environment
def test_no_log_is_kept_for_ever(synth: Synth, env: str) -> None:
    logs = synth.resources(env, "AWS::Logs::LogGroup").values()
    assert len(logs) == len(FUNCTIONS) + 1 + synth.settings[env].has_containers  # of the API, and the role of ECS
    assert {log["RetentionInDays"] for log in logs} == {synth.settings[env].log_days}


def test_a_permissions_boundary_bounds_every_role(synth: Synth) -> None:
    boundary = synth.settings["all"].permissions_boundary
    roles = synth.resources("all", "AWS::IAM::Role")
    own = {name: item for name, item in roles.items() if "CustomResourceProvider" not in name}
    assert len(own) >= len(FUNCTIONS) + 1
    assert {item.get("PermissionsBoundary") for item in own.values()} == {boundary}


def test_replaced_versions_of_step_layers_are_retained(synth: Synth) -> None:
    """The newest version is deleted with the stack. The engine's own layers are deleted when they are replaced: Lambdas
    of sources that use them go on, and take the new ones at their next deployment."""
    layers = synth.templates["dev"].find_resources("AWS::Lambda::LayerVersion")
    kept = {name for name, item in layers.items() if item.get("UpdateReplacePolicy") == "Retain"}
    parameters = synth.resources("dev", "AWS::SSM::Parameter").values()
    of_steps = [resource for resource in parameters if "/sources/" not in resource["Name"]]
    used = {name for resource in of_steps for name in references(resource)}
    assert kept == used & layers.keys() != set()
    assert all(layer.get("DeletionPolicy", "Delete") == "Delete" for layer in layers.values())


def test_the_adapter_s_images_are_assets_that_deployments_keep(synth: Synth) -> None:
    """Task definitions of open runs use images of earlier deployments, and ECS may still pull them."""
    policies = synth.resources("all", "AWS::IAM::Policy").values()
    pulls = [
        statement
        for policy in policies
        for statement in policy["PolicyDocument"]["Statement"]
        if "ecr:BatchGetImage" in statement["Action"]
    ]
    assets = [pull for pull in pulls if "cdk-hnb659fds-container-assets" in str(pull["Resource"])]
    assert assets
    assert all("Condition" not in asset for asset in assets)
