"""A source in your own stack: an event source mapping and the Lambda that makes events of its records.

    from aws_cdk.aws_lambda_event_sources import SqsEventSource

    Source(self, "Orders", file="sources/orders.yaml", env="prod",
           reads=SqsEventSource(queue, batch_size=100, max_batching_window=Duration.seconds(1),
                                report_batch_item_failures=True))

`file` has the rule: `event`, `id`, `data`, `user`, `ts`, `if`, `body`. What it reads is `reads`, any event source of
CDK for SQS, Kinesis, Amazon MSK or another Kafka. Records that make no event go to `self.quarantine`, a queue.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aws_cdk import Duration, IgnoreMode, RemovalPolicy, SymlinkFollowMode
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sqs as sqs
from aws_cdk import aws_ssm as ssm
from constructs import Construct

import stepwell
from stepwell.aws.api.source import QUARANTINE, RULE
from stepwell.aws.resources import VARIABLE
from stepwell.cdk.environment import Environment
from stepwell.cdk.queue import DurableQueue
from stepwell.core.sources.definition import parse_source
from stepwell.project.sources import read_source

LAYERS = ("light", "expressions", "types")
_PACKAGES = ("cdk", "cli", "dev", "local", "testing")  # of stepwell, which no Lambda imports
_EXCLUDED = ["/*", "!/stepwell", "__pycache__", "*.pyc", *(f"/stepwell/{package}" for package in _PACKAGES)]
_MAPPING = ("name", "type", "event", "id", "data", "user", "ts", "if", "body")
_TIMEOUT = Duration.seconds(60)


def source_parameter(env: str, name: str) -> str:
    """The name of the SSM parameter with one value of an environment that the Lambdas of sources need."""
    return f"/stepwell/{env}/sources/{name}"


class Source(Construct):
    """A source. `function` is the Lambda, `quarantine` the queue of records that made no event.

    `env`: the environment's name. The rule is in `file`, or is `rule` itself, with a `name`. Raises LoadError,
    DefinitionError.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        env: str,
        file: str | Path | None = None,
        rule: Mapping[str, Any] | None = None,
        reads: lambda_.IEventSource | Sequence[lambda_.IEventSource],
        memory: int = 512,
    ) -> None:
        super().__init__(scope, id)
        mapping = _mapping(file, rule)
        self._env = env
        self.quarantine = self._queue()
        self.function = lambda_.Function(
            self,
            "Function",
            description=f"Stepwell {env}: the source {mapping['name']}",
            code=_code(),
            handler="stepwell.aws.api.source_handler.handler",
            runtime=lambda_.Runtime(self._value("runtime"), lambda_.RuntimeFamily.PYTHON),
            architecture=lambda_.Architecture.custom(self._value("architecture")),
            layers=[
                lambda_.LayerVersion.from_layer_version_arn(self, f"Layer-{name}", self._value(f"layer-{name}"))
                for name in LAYERS
            ],
            memory_size=memory,
            timeout=_TIMEOUT,
            log_group=logs.LogGroup(
                self, "Log", retention=logs.RetentionDays.ONE_MONTH, removal_policy=RemovalPolicy.DESTROY
            ),
            environment={
                VARIABLE: ssm.StringParameter.value_for_string_parameter(self, self._value_name("resources")),
                RULE: json.dumps(mapping, separators=(",", ":")),
                QUARANTINE: self.quarantine.queue_url,
            },
        )
        self.function.add_to_role_policy(
            iam.PolicyStatement(
                sid="Types", actions=["dynamodb:GetItem", "dynamodb:Query"], resources=[self._value("table-arn")]
            )
        )
        Environment(self, "Environment", env).grant_send(self.function)
        self.quarantine.grant_send_messages(self.function)
        for event_source in [reads] if not isinstance(reads, Sequence) else reads:
            self.function.add_event_source(event_source)

    def _queue(self) -> sqs.Queue:
        """The quarantine: messages stay for 14 days, encrypted."""
        return DurableQueue(self, "Quarantine", handler_timeout=_TIMEOUT).queue

    def _value_name(self, name: str) -> str:
        return source_parameter(self._env, name)

    def _value(self, name: str) -> str:
        return ssm.StringParameter.value_for_string_parameter(self, self._value_name(name))


def _code() -> lambda_.Code:
    """The installed package, without what no Lambda imports."""
    return lambda_.Code.from_asset(
        str(Path(stepwell.__file__).parents[1]),
        exclude=_EXCLUDED,
        ignore_mode=IgnoreMode.GIT,
        follow_symlinks=SymlinkFollowMode.ALWAYS,
    )


def _mapping(file: str | Path | None, rule: Mapping[str, Any] | None) -> dict[str, Any]:
    """The parts of a source that make an event; how a server connects is not used here."""
    if (file is None) == (rule is None):
        raise ValueError("give either the file of a source, or a rule")
    if file is not None:
        found = read_source(Path(file)).rule
    else:
        assert rule is not None
        found = parse_source({"type": "sqs", "queue": "unused", **rule}, str(rule.get("name", "")))
    return {name: found[name] for name in _MAPPING if name in found}
