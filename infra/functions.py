"""The engine's Lambdas, as `stepwell.aws.topology` lists them, and their triggers.

All Lambdas have `RecursiveLoop: Allow`. A step's outcome starts advance, which starts the next step. Lambda would stop
such a chain after about 16 rounds. The engine has limits of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from aws_cdk import (
    Duration,
)
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.code import TRACER, EngineCode
from infra.logs import log_group
from infra.queues import Queues
from infra.roles import LambdaRole, let_log, statements
from infra.settings import Settings
from stepwell.aws.observability import LOG_LEVEL, METRICS, TRACING, application_log_level
from stepwell.aws.topology import FUNCTIONS, EngineInvocation, Function, Queue, Schedule


class Functions(Construct):
    """The Lambdas of the engine. `places`: ARNs by the names that `roles` uses."""

    def __init__(self, scope: Construct, settings: Settings, code: EngineCode, places: Mapping[str, list[str]]) -> None:
        super().__init__(scope, "Functions")
        # With this flag CDK would create log groups of the same names as those below.
        self.node.set_context("@aws-cdk/aws-lambda:useCdkManagedLogGroup", False)
        self._settings, self._code, self._places = settings, code, dict(places)
        self.by_name: dict[str, lambda_.Function] = {}
        # step_http is first, since the roles of the others refer to it.
        for function in sorted(FUNCTIONS, key=lambda value: not isinstance(value.trigger, EngineInvocation)):
            self.by_name[function.name] = made = self._function(function)
            self._places.setdefault(function.name, [made.function_arn])

    def _function(self, function: Function) -> lambda_.Function:
        settings = self._settings
        scope = Construct(self, function.name)
        role = LambdaRole(scope, "Role", statements(function.name, settings), self._places)
        made = lambda_.Function(
            scope,
            "Function",
            description=f"Stepwell {settings.env}: {function.text}",
            code=self._code.code,
            handler=f"lambdas.{function.name}.handler",
            runtime=self._code.runtime,
            architecture=self._code.architecture,
            layers=[self._code.layers[name] for name in (*function.layers, *((TRACER,) if settings.tracing else ()))],
            memory_size=function.memory_mb or settings.memory,
            timeout=Duration.seconds(function.timeout_s),
            role=role.without_policy_updates(),
            tracing=lambda_.Tracing.ACTIVE if settings.tracing else lambda_.Tracing.DISABLED,
            reserved_concurrent_executions=self._reserved(function.name),
            environment={
                "STEPWELL_ENV_NAME": settings.env,
                LOG_LEVEL: settings.log_level,
                **({TRACING: "true"} if settings.tracing else {}),
                **({} if settings.metrics else {METRICS: "false"}),
            },
            **self._logging(function),
        )
        cast(lambda_.CfnFunction, made.node.default_child).recursive_loop = "Allow"
        log = log_group(scope, "Log", settings, f"/aws/lambda/{made.function_name}")
        let_log(scope, role, log.log_group_arn)
        self._places[f"{function.name} log"] = [log.log_group_arn]
        return made

    def _logging(self, function: Function) -> dict[str, Any]:
        """The logging configuration: JSON, and only warnings of Lambda's own messages.

        START, END and REPORT would be most of an idle environment's logs. `step_http` keeps them: they delimit the log
        of an attempt (`stepwell.aws.api.logs`).
        """
        if isinstance(function.trigger, EngineInvocation):
            return {}
        return {
            "logging_format": lambda_.LoggingFormat.JSON,
            "system_log_level_v2": lambda_.SystemLogLevel.WARN,
            "application_log_level_v2": lambda_.ApplicationLogLevel[application_log_level(self._settings.log_level)],
        }

    def _concurrency(self, name: str) -> int | None:
        """The maximum number of instances of a Lambda that reads a queue; None for others."""
        return {"route": self._settings.route_concurrency, "advance": self._settings.advance_concurrency}.get(name)

    def scope_of(self, name: str) -> Construct:
        """The construct with the Lambda, the role, the policies and the log group."""
        return cast(Construct, self.node.find_child(name))

    def _reserved(self, name: str) -> int | None:
        """The number of instances that are reserved for a Lambda, which is also the limit. None: no reservation."""
        settings = self._settings
        if settings.reserved_concurrency and (most := self._concurrency(name)):
            return most
        reserved = {
            "ingest": settings.ingest_concurrency,
            "api": settings.api_concurrency,
            "tick": settings.tick_concurrency,
        }
        return reserved.get(name) or None

    # --- triggers --------------------------------------------------------------------------------------------------

    def connect(self, queues: Queues) -> None:
        """Creates the triggers, except the HTTP API, which is in `infra/ingest.py`. CloudFormation needs no trigger."""
        for function in FUNCTIONS:
            made = self.by_name[function.name]
            match function.trigger:
                case Queue(name, most):
                    self._read(function.name, queues.all[name].queue.queue_arn, most)
                case Schedule(minutes):
                    self._every(minutes, made)
                case EngineInvocation(answers):
                    self._invoked_by_engine(made, queues.all[answers].queue.queue_arn)

    def _read(self, name: str, queue: str, most: int) -> None:
        lambda_.EventSourceMapping(
            self.by_name[name],
            "Queue",
            target=self.by_name[name],
            event_source_arn=queue,
            batch_size=min(most, self._settings.batch_size),
            max_batching_window=Duration.seconds(self._settings.batching_window),
            max_concurrency=self._concurrency(name),
            report_batch_item_failures=True,
        )

    def _every(self, minutes: int, function: lambda_.Function) -> None:
        every = Duration.minutes(minutes)
        events.Rule(
            self,
            "EveryMinute",
            schedule=events.Schedule.rate(every),
            targets=[targets.LambdaFunction(function, retry_attempts=0, max_event_age=every)],
        )

    def _invoked_by_engine(self, function: lambda_.Function, outcomes: str) -> None:
        """Configures asynchronous invocations as `stepwell push` does for step Lambdas: Lambda does not retry."""
        to_outcomes = lambda_.CfnEventInvokeConfig.OnSuccessProperty(destination=outcomes)
        lambda_.CfnEventInvokeConfig(
            function,
            "Answers",
            function_name=function.function_name,
            qualifier="$LATEST",
            maximum_retry_attempts=0,
            maximum_event_age_in_seconds=self._settings.event_age_s,
            destination_config=lambda_.CfnEventInvokeConfig.DestinationConfigProperty(
                on_success=to_outcomes,
                on_failure=lambda_.CfnEventInvokeConfig.OnFailureProperty(destination=outcomes),
            ),
        )
