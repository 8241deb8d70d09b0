"""The roles of the engine's Lambdas have exactly the statements in the table."""

from __future__ import annotations

from typing import Any

import pytest

from infra.roles import STATEMENTS, statements
from stepwell.aws.topology import BUS, EVENTS, FUNCTIONS, OUTCOMES, STEPS, Function
from tests.infra.conftest import Synth
from tests.infra.test_stack import functions, references

DELETE = "ssm:DeleteParameter"


def policies(synth: Synth, env: str, name: str) -> list[dict[str, Any]]:
    """All statements of a Lambda's role, from all policies."""
    (role,) = references(functions(synth, env)[name]["Role"])
    resource = synth.resources(env, "AWS::IAM::Role")[role]
    assert "ManagedPolicyArns" not in resource
    documents = [policy["PolicyDocument"] for policy in resource["Policies"]]
    for policy in synth.resources(env, "AWS::IAM::Policy").values():
        if role in references(policy["Roles"]):
            documents.append(policy["PolicyDocument"])
    return [statement for document in documents for statement in document["Statement"]]


def actions(statement: dict[str, Any]) -> list[str]:
    value = statement["Action"]
    return [value] if isinstance(value, str) else value


def test_every_lambda_has_statements() -> None:
    assert set(STATEMENTS) == {function.name for function in FUNCTIONS}


@pytest.mark.parametrize("env", ["dev", "all", "bare"])
@pytest.mark.parametrize("name", STATEMENTS)
def test_a_role_has_the_statements_in_the_table(synth: Synth, env: str, name: str) -> None:
    expected = {action for statement in statements(name, synth.settings[env]) for action in statement.names}
    found = {action for policy in policies(synth, env, name) for action in actions(policy)}
    assert found == expected | {"logs:CreateLogStream", "logs:PutLogEvents"}


@pytest.mark.parametrize("env", ["dev", "all"])
@pytest.mark.parametrize("name", STATEMENTS)
def test_no_role_may_do_anything_to_everything(synth: Synth, env: str, name: str) -> None:
    nameless = {"ecs:ListTasks", "xray:PutTraceSegments", "xray:PutTelemetryRecords"}
    for statement in policies(synth, env, name):
        assert not [action for action in actions(statement) if "*" in action]
        if statement["Resource"] == "*":
            assert set(actions(statement)) <= nameless


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda value: str(value.name))
def test_a_lambda_s_permissions_match_the_topology(function: Function, synth: Synth) -> None:
    calls = {
        ("lambda:InvokeFunction", "step lambdas"): STEPS,
        ("events:PutEvents", "bus"): BUS,
        ("sqs:SendMessage", "events"): EVENTS,
        ("sqs:SendMessage", "outcomes"): OUTCOMES,
    }
    allowed = {
        (action, place)
        for env in ("dev", "all")
        for statement in statements(function.name, synth.settings[env])
        for action in statement.names
        for place in statement.places
    }
    assert {calls[one] for one in allowed if one in calls} == set(function.calls)


@pytest.mark.parametrize("env", ["dev", "all"])
def test_every_role_can_be_assumed_for_this_account_only(synth: Synth, env: str) -> None:
    for id, role in synth.resources(env, "AWS::IAM::Role").items():
        if id.startswith("CustomS3AutoDeleteObjects"):
            continue  # CDK makes this role, and offers no way to add a condition
        for statement in role["AssumeRolePolicyDocument"]["Statement"]:
            if statement["Principal"]["Service"] in ("lambda.amazonaws.com", "ecs-tasks.amazonaws.com"):
                wanted = {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}
                assert statement["Condition"] == wanted, role


def test_roles_can_be_passed_to_ecs_only(synth: Synth) -> None:
    found = [policy for policy in policies(synth, "all", "advance") if "iam:PassRole" in actions(policy)]
    assert [item["Condition"] for item in found] == [
        {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}
    ]


def test_permissions_for_containers_exist_only_with_containers(synth: Synth) -> None:
    for name in STATEMENTS:
        assert not [
            policy for policy in policies(synth, "dev", name) for action in actions(policy) if action.startswith("ecs:")
        ]


def test_ingest_has_permission_only_for_the_configured_target(synth: Synth) -> None:
    found = {action for policy in policies(synth, "all", "ingest") for action in actions(policy)}
    assert "events:PutEvents" not in found
    assert "sqs:SendMessage" in found


@pytest.mark.parametrize("env", ["dev", "all"])
def test_only_lambdas_that_sign_or_check_may_read_the_signing_keys(synth: Synth, env: str) -> None:
    def may(name: str) -> set[str]:
        return {
            action
            for policy in policies(synth, env, name)
            if "signing-keys" in str(policy["Resource"])
            for action in actions(policy)
        }

    makes = {"ssm:GetParameter", "ssm:PutParameter"} | (set() if synth.settings[env].keep_data else {DELETE})
    assert {name: may(name) for name in STATEMENTS if may(name)} == {
        **{user: {"ssm:GetParameter"} for user in ("route", "advance", "tick", "api")},
        "register": makes,
    }


def test_the_key_decrypts_for_a_lambda_only_the_parameters_that_it_may_read(synth: Synth) -> None:
    found = {}
    for name in STATEMENTS:
        for policy in policies(synth, "all", name):
            if "kms:EncryptionContext:PARAMETER_ARN" in str(policy):
                found[name] = str(policy["Condition"]["StringLike"]["kms:EncryptionContext:PARAMETER_ARN"])
                assert "ssm." in str(policy["Condition"]["StringEquals"]["kms:ViaService"])
    holds = {
        name: {part for part in ("dotenv", "secrets", "signing-keys") if part in text} for name, text in found.items()
    }
    assert holds == {
        **{user: {"signing-keys"} for user in ("route", "advance", "tick", "api", "register")},
        "ingest": {"secrets"},
        "step_http": {"dotenv", "secrets"},
    }


def test_ingest_may_read_only_keys_types_and_webhooks_in_the_table(synth: Synth) -> None:
    (statement,) = [policy for policy in policies(synth, "dev", "ingest") if "dynamodb:GetItem" in actions(policy)]
    assert actions(statement) == ["dynamodb:GetItem"]  # Scan names no partition, so the condition would not limit it
    assert statement["Condition"] == {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["KEY", "META", "Y#*", "H"]}}
