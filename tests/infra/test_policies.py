"""Resource policies of topics, queues, the bus, the bucket and the key: they allow only what is needed, under the
narrowest conditions."""

from __future__ import annotations

import json
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk.assertions import Template

from infra import key_policy
from infra.bus import Bus
from infra.queues import Queues
from infra.settings import Settings
from tests.infra.conftest import EVERYTHING, Synth
from tests.infra.physical import ACCOUNT, REGION, Physical

every_environment = pytest.mark.parametrize("env", ["dev", "all", "bare"])
NO_TLS = {"Bool": {"aws:SecureTransport": "false"}}
OLD_TLS = {"NumericLessThan": {"s3:TlsVersion": 1.2}}
Statement = dict[str, Any]
Allowed = tuple[str, str, str]  # service, action and, as JSON, the conditions

POLICIES = {  # resource policies by the type of what they are for, with the property that names it
    "AWS::SQS::QueuePolicy": ("AWS::SQS::Queue", "Queues"),
    "AWS::SNS::TopicPolicy": ("AWS::SNS::Topic", "Topics"),
    "AWS::S3::BucketPolicy": ("AWS::S3::Bucket", "Bucket"),
}
OTHER_POLICIES = {"AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"}  # of roles, which tests/infra/test_roles.py has


def account(synth: Synth, env: str) -> Physical:
    return Physical(synth.templates[env].to_json())


def statements(there: Physical, kind: str) -> dict[str, list[Statement]]:
    """The statements about each resource of this type, by logical id. Resources without statements are included."""
    found: dict[str, list[Statement]] = {id: [] for id in there.of_type(kind)}
    for policy_kind, (about, name) in POLICIES.items():
        if about != kind:
            continue
        for policy in there.of_type(policy_kind).values():
            targets = policy[name] if isinstance(policy[name], list) else [policy[name]]
            for target in targets:
                (id,) = [one for one in found if there.ref(one) == there.value(target)]
                found[id] += [there.value(item) for item in policy["PolicyDocument"]["Statement"]]
    return found


def allowed(found: list[Statement], arn: str) -> set[Allowed]:
    grants = [statement for statement in found if statement["Effect"] == "Allow"]
    assert all(grant["Resource"] == arn for grant in grants)
    return {(grant["Principal"]["Service"], grant["Action"], json.dumps(grant["Condition"])) for grant in grants}


def of_rule(there: Physical, id: str) -> Allowed:
    return "events.amazonaws.com", "sqs:SendMessage", json.dumps({"ArnEquals": {"aws:SourceArn": there.arn(id)}})


# --- each kind --------------------------------------------------------------------------------------------------------


@every_environment
def test_a_queue_s_policy_allows_exactly_the_rules_that_send_to_it(synth: Synth, env: str) -> None:
    """Lambdas and steps send with their roles, so no queue policy names them."""
    there = account(synth, env)
    expected: dict[str, set[Allowed]] = {there.arn(id): set() for id in there.of_type("AWS::SQS::Queue")}
    for id, rule in there.of_type("AWS::Events::Rule").items():
        for target in rule["Targets"]:
            for place in (target["Arn"], target.get("DeadLetterConfig", {}).get("Arn")):
                if (arn := there.value(place)) in expected:
                    expected[arn].add(of_rule(there, id))
    found = {there.arn(id): allowed(items, there.arn(id)) for id, items in statements(there, "AWS::SQS::Queue").items()}
    assert found == expected
    assert sum(map(len, found.values())) == (4 if synth.settings[env].has_containers else 2)


@every_environment
def test_the_topic_s_policy_allows_only_alarms_of_this_account(synth: Synth, env: str) -> None:
    there = account(synth, env)
    conditions = {
        "StringEquals": {"aws:SourceAccount": ACCOUNT},
        "ArnLike": {"aws:SourceArn": f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:*"},
    }
    alarms = ("cloudwatch.amazonaws.com", "sns:Publish", json.dumps(conditions))
    topics = statements(there, "AWS::SNS::Topic")
    assert len(topics) == synth.settings[env].alarms
    for id, found in topics.items():
        assert allowed(found, there.arn(id)) == {alarms}


@every_environment
def test_requests_without_tls_are_denied(synth: Synth, env: str) -> None:
    there = account(synth, env)
    for kind in ("AWS::SQS::Queue", "AWS::SNS::Topic", "AWS::S3::Bucket"):
        for id, found in statements(there, kind).items():
            denied = [statement for statement in found if statement["Effect"] == "Deny"]
            without_tls = [item["Principal"] for item in denied if item["Condition"] == NO_TLS]
            assert without_tls in (["*"], [{"AWS": "*"}]), id
            assert all(item["Condition"] in (NO_TLS, OLD_TLS) for item in denied), id


@every_environment
def test_the_bus_accepts_events_of_this_account_only(synth: Synth, env: str) -> None:
    """A bus without a policy accepts events only from roles of the same account that IAM allows to send."""
    there = account(synth, env)
    assert len(there.of_type("AWS::Events::EventBus")) == 1
    assert not there.of_type("AWS::Events::EventBusPolicy")
    assert all("Policy" not in bus for bus in there.of_type("AWS::Events::EventBus").values())


@every_environment
def test_the_bucket_s_policy_allows_only_the_lambda_that_empties_it(synth: Synth, env: str) -> None:
    there = account(synth, env)
    ((_, found),) = statements(there, "AWS::S3::Bucket").items()
    principals = [statement["Principal"] for statement in found if statement["Effect"] == "Allow"]
    if synth.settings[env].keep_data:
        assert principals == []
    else:
        (principal,) = principals
        assert "CustomS3AutoDeleteObjects" in principal["AWS"]


@every_environment
def test_a_lambda_s_policy_allows_only_the_triggers(synth: Synth, env: str) -> None:
    there = account(synth, env)
    tick = next(
        id for id, item in there.of_type("AWS::Lambda::Function").items() if item["Handler"] == "lambdas.tick.handler"
    )
    for permission in there.of_type("AWS::Lambda::Permission").values():
        found = there.value({name: value for name, value in permission.items() if name != "SourceArn"})
        assert found["Principal"] in ("apigateway.amazonaws.com", "events.amazonaws.com")
        assert "SourceArn" in permission
        if found["Principal"] == "events.amazonaws.com":
            assert found["FunctionName"] == there.arn(tick)


# --- all kinds --------------------------------------------------------------------------------------------------------


@every_environment
def test_these_tests_cover_all_resource_policies(synth: Synth, env: str) -> None:
    kinds = {
        resource["Type"] for resource in account(synth, env).resources.values() if resource["Type"].endswith("Policy")
    }
    assert kinds <= {*POLICIES, *OTHER_POLICIES}


@every_environment
def test_no_policy_has_a_wildcard_principal(synth: Synth, env: str) -> None:
    there = account(synth, env)
    for kind in ("AWS::SQS::Queue", "AWS::SNS::Topic", "AWS::S3::Bucket"):
        for found in statements(there, kind).values():
            for statement in found:
                if statement["Effect"] == "Allow":
                    assert "*" not in json.dumps(statement["Principal"])
                    if "Service" in statement["Principal"]:
                        assert "aws:Source" in json.dumps(statement["Condition"])


# --- with a key -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", [None, True, False])
def test_policies_of_encrypted_queues_name_the_rules_under_any_feature_flags(flag: bool | None) -> None:
    app = cdk.App(context={} if flag is None else {"@aws-cdk/aws-events:eventsTargetQueueSameAccount": flag})
    stack = cdk.Stack(app, "Stack")
    Bus(stack, Settings(kms_key=EVERYTHING.kms_key), Queues(stack, Settings(kms_key=EVERYTHING.kms_key)))
    there = Physical(Template.from_stack(stack).to_json())
    (rule,) = there.of_type("AWS::Events::Rule")
    assert {item["KmsMasterKeyId"] for item in there.of_type("AWS::SQS::Queue").values()} == {EVERYTHING.kms_key}
    found = [allowed(items, there.arn(id)) for id, items in statements(there, "AWS::SQS::Queue").items()]
    assert [one for one in found if one] == [{of_rule(there, rule)}] * 2  # the queue and the dead-letter queue


def test_the_key_policy_statements_cover_all_services_that_use_the_key(synth: Synth) -> None:
    """EventBridge for the queues, CloudWatch for the topic, and CloudWatch Logs. All others use the key with a role."""
    there = account(synth, "all")
    services = {"events.amazonaws.com"} if there.of_type("AWS::SQS::QueuePolicy") else set()
    services |= {"cloudwatch.amazonaws.com"} if there.of_type("AWS::SNS::Topic") else set()
    services |= {f"logs.{REGION}.amazonaws.com"} if there.of_type("AWS::Logs::LogGroup") else set()
    items = key_policy.statements(EVERYTHING.kms_key)
    assert {item["Principal"]["Service"] for item in items} == services
    for item in items:
        assert item["Effect"] == "Allow"
        assert {"kms:Decrypt", "kms:GenerateDataKey*"} <= set(item["Action"]) <= {
            "kms:Decrypt", "kms:GenerateDataKey*", "kms:Encrypt", "kms:ReEncrypt*", "kms:DescribeKey",
        }  # fmt: skip
        ((_, condition),) = item["Condition"].items()
        ((name, value),) = condition.items()
        assert name.startswith(("kms:EncryptionContext:aws:", "aws:SourceAccount"))
        assert ACCOUNT in value


def test_the_environment_s_account_can_differ_from_the_key_s() -> None:
    for statement in key_policy.statements(EVERYTHING.kms_key, account="999999999999"):
        assert "999999999999" in json.dumps(statement["Condition"])
        assert ACCOUNT not in json.dumps(statement["Condition"])


def test_missing_statements_of_a_key_s_policy_are_found() -> None:
    first, *rest = key_policy.statements(EVERYTHING.kms_key)
    reordered = {**first, "Sid": "Other", "Action": first["Action"][::-1]}
    assert key_policy.missing({"Statement": [reordered, *rest]}, [first, *rest]) == []
    wider = {**first, "Condition": {}}
    assert key_policy.missing({"Statement": [wider, *rest]}, [first, *rest]) == [first]


def test_the_statements_are_printed_only_for_the_arn_of_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert key_policy.main([EVERYTHING.kms_key]) == 0
    assert json.loads(capsys.readouterr().out) == key_policy.statements(EVERYTHING.kms_key)
    with pytest.raises(SystemExit, match=r"kms_key: 'alias/mine' is not the ARN of a key"):
        key_policy.main(["alias/mine"])


def test_cdk_accepts_the_statements() -> None:
    stack = cdk.Stack()
    key = kms.Key(stack, "Key")
    for statement in key_policy.statements(EVERYTHING.kms_key):
        key.add_to_resource_policy(iam.PolicyStatement.from_json(statement))
    (made,) = Template.from_stack(stack).find_resources("AWS::KMS::Key").values()
    assert key_policy.missing(made["Properties"]["KeyPolicy"], key_policy.statements(EVERYTHING.kms_key)) == []
