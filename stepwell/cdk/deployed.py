"""The values of an environment that functions in other stacks need. CloudFormation reads them at deployment.

CDK does not read them from the account, so synthesis needs no credentials and no network. The environment's stack
writes each value to a parameter in SSM. A stack with functions refers to them by template parameters of the type
`AWS::SSM::Parameter::Value`, which CloudFormation resolves, also in conditions:
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-supplied-parameter-types.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from aws_cdk import Acknowledgment, Aws, CfnCondition, Fn, Stack, Token, Validations
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from stepwell.aws.resources import Resources

_NONE = "-"  # SSM does not accept an empty value
_KMS_KEY, _BOUNDARY, _TRACING = "kms-key", "permissions-boundary", "tracing"
_SUBNETS, _GROUPS = "subnets", "security-groups"
_VALUE_RULES = ("F3031", "W3030")  # a KMS key must be an ARN; a retention must be one that CloudWatch Logs supports
_ARCHITECTURES = ("arm64", "x86_64")
Json = dict[str, Any]


def step_parameter(env: str, name: str) -> str:
    """The name of the SSM parameter with one value of an environment."""
    return f"/stepwell/{env}/steps/{name}"


def step_parameters(resources: Resources, outcomes_queue: str) -> dict[str, str | tuple[str, ...]]:
    """The values that an environment's stack writes to SSM, by name. `outcomes_queue`: the queue's name."""
    layers = {f"layer-{architecture}": resources.layers[architecture] for architecture in _ARCHITECTURES}
    lists = {_SUBNETS: resources.step_subnets, _GROUPS: resources.step_security_groups}
    return {
        "outcomes-queue": outcomes_queue,
        **layers,
        **{name: ids for name, ids in lists.items() if ids},
        _KMS_KEY: resources.kms_key or _NONE,
        _BOUNDARY: resources.permissions_boundary or _NONE,
        _TRACING: "true" if resources.tracing else "false",
        "retention-days": str(resources.retention_days),
        "event-age-s": str(resources.event_age_s),
    }


class Deployed(Construct):
    """A deployed environment, for steps in another stack.

    `resources`: the environment's values, if they are known at synthesis. Otherwise `self.resources` contains tokens,
    which CloudFormation resolves. `network`: whether steps need the environment's network.
    """

    def __init__(self, scope: Construct, id: str, env: str, resources: Resources | None, *, network: bool) -> None:
        super().__init__(scope, id)
        self._env, self._is_known = env, resources is not None
        self._conditions: dict[str, CfnCondition] = {}
        self.resources = resources or self._read(network)

    def acknowledge(self, group: Construct) -> None:
        """Silences CDK's checks of values that are only known at deployment."""
        for rule in () if self._is_known else _VALUE_RULES:
            reason = "CloudFormation inserts the value of an SSM parameter at deployment"
            Validations.of(group).acknowledge(Acknowledgment(id=f"CloudFormation-Validate::{rule}", reason=reason))

    def find_layers(self, architectures: Iterable[str]) -> None:
        """Adds the adapter's layers for these architectures to `self.resources`."""
        if not self._is_known:
            layers = {architecture: self._text(f"layer-{architecture}") for architecture in sorted(set(architectures))}
            self.resources = replace(self.resources, layers=layers)

    @property
    def kms_key(self) -> str | None:
        return self._if_any(_KMS_KEY, self.resources.kms_key)

    @property
    def permissions_boundary(self) -> str | None:
        return self._if_any(_BOUNDARY, self.resources.permissions_boundary)

    def tracing_mode(self, tracing: bool | None) -> str:
        """The tracing mode of a Lambda. `tracing`: the step's setting; None: the environment's."""
        if tracing is None and not self._is_known:
            return Fn.condition_if(self._condition(_TRACING).logical_id, "Active", "PassThrough").to_string()
        return "Active" if (self.resources.tracing if tracing is None else tracing) else "PassThrough"

    def policy(self, document: Mapping[str, Any], *, traced: bool = True) -> Json:
        """A role's policy, with conditions on what the environment has.

        The statements about the KMS key apply only if the environment has a key. Unless `traced`, the statement about
        traces applies only if the environment has tracing.
        """
        if self._is_known:
            return dict(document)
        statements = []
        for statement in document["Statement"]:
            is_key, is_trace = statement["Sid"].endswith("Key"), statement["Sid"] == "Traces"
            needs = _KMS_KEY if is_key else _TRACING if is_trace and not traced else None
            statements.append(self._only_if(needs, statement) if needs else statement)
        return {**document, "Statement": statements}

    def may_trace(self, tracing: Sequence[bool | None]) -> bool:
        """Whether any of these steps may be traced. `tracing`: the steps' settings."""
        by_environment = self.resources.tracing or not self._is_known
        return any(by_environment if setting is None else setting for setting in tracing)

    def _only_if(self, name: str, value: Any) -> Json:
        return {"Fn::If": [self._condition(name).logical_id, value, {"Ref": "AWS::NoValue"}]}

    def _if_any(self, name: str, value: str) -> str | None:
        if self._is_known:
            return value or None
        return Fn.condition_if(self._condition(name).logical_id, value, Aws.NO_VALUE).to_string()

    def _condition(self, name: str) -> CfnCondition:
        """The template's condition that the environment has this value."""
        if name not in self._conditions:
            absent = "false" if name == _TRACING else _NONE
            has = Fn.condition_not(Fn.condition_equals(self._text(name), absent))
            self._conditions[name] = CfnCondition(self, f"Has-{name}", expression=has)
        return self._conditions[name]

    def _read(self, network: bool) -> Resources:
        stack = Stack.of(self)
        ids = {name: tuple(self._list(name)) if network else () for name in (_SUBNETS, _GROUPS)}
        return Resources(
            env=self._env,
            region=stack.region,
            account=stack.account,
            table="",
            bus="",
            events_queue="",
            events_queue_arn="",
            outcomes_queue="",
            outcomes_queue_arn=stack.format_arn(service="sqs", resource=self._text("outcomes-queue")),
            bucket="",
            step_http="",
            permissions_boundary=self._text(_BOUNDARY),
            kms_key=self._text(_KMS_KEY),
            retention_days=Token.as_number(self._text("retention-days")),
            event_age_s=Token.as_number(self._text("event-age-s")),
            step_subnets=ids[_SUBNETS],
            step_security_groups=ids[_GROUPS],
        )

    def _text(self, name: str) -> str:
        return ssm.StringParameter.value_for_string_parameter(self, step_parameter(self._env, name))

    def _list(self, name: str) -> list[str]:
        return ssm.StringListParameter.value_for_typed_list_parameter(self, step_parameter(self._env, name))
