"""Resources of the stack for pushes: a boundary for the roles of steps, and the names that a push policy needs."""

from __future__ import annotations

import json

import pytest

from infra.setting_fields import BadSetting
from infra.settings import Settings
from stepwell.aws.resources import parameter
from stepwell.cdk.push import push_parameter
from tests.infra.conftest import Synth
from tests.infra.test_stack import references


def test_roles_of_steps_are_bounded_by_a_policy_of_the_stack(synth: Synth) -> None:
    ((policy, value),) = synth.resources("dev", "AWS::IAM::ManagedPolicy").items()
    allowed = {action for one in value["PolicyDocument"]["Statement"] for action in _list(one["Action"])}
    assert not [action for action in allowed if action.startswith("iam:") or "*" in action]
    written = {
        resource["Name"]: resource["Value"] for resource in synth.resources("dev", "AWS::SSM::Parameter").values()
    }
    for name in (parameter("dev"), push_parameter("dev")):
        assert policy in references(written[name])


def test_the_setting_permissions_boundary_replaces_the_stack_s_boundary(synth: Synth) -> None:
    assert synth.resources("all", "AWS::IAM::ManagedPolicy") == {}
    written = {
        resource["Name"]: resource["Value"] for resource in synth.resources("all", "AWS::SSM::Parameter").values()
    }
    assert synth.settings["all"].permissions_boundary in json.dumps(written[push_parameter("all")])


@pytest.mark.parametrize("actions", ["iam:*", "s3:GetObject,iam:PassRole", "*", "s3", "organizations:ListRoots"])
def test_steps_can_never_be_allowed_to_change_the_account(actions: str) -> None:
    with pytest.raises(BadSetting, match="step_actions"):
        Settings(step_actions=actions)


def test_a_boundary_is_widened_or_replaced_but_not_both() -> None:
    assert Settings(step_actions="s3:GetObject,ses:*").step_action_list == ["s3:GetObject", "ses:*"]
    with pytest.raises(BadSetting, match="permissions_boundary"):
        Settings(step_actions="ses:*", permissions_boundary="arn:aws:iam::123456789012:policy/own")


def _list(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]
