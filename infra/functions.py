"""The engine's Lambdas: one table of them, and what starts each.

One rule: what goes round from Lambda to Lambda (a step's outcome starts advance, which starts the next step) must say
`RecursiveLoop: Allow`, or Lambda stops it after some sixteen rounds; the engine has guards of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from aws_cdk import (
    Duration,
)
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.code import EngineCode
from infra.logs import log_group
from infra.queues import HANDLER_TIMEOUT, Queues
from infra.roles import LambdaRole, let_log, statements
from infra.settings import Settings

ENGINE_LAYERS = ("light", "expressions")
API_LAYERS = (*ENGINE_LAYERS, "openapi", "types")


@dataclass(frozen=True)
class Function:
    """`memory` None: the setting. `in_loop`: what it does may start it again."""

    name: str
    text: str
    timeout: Duration
    layers: tuple[str, ...] = ENGINE_LAYERS
    memory: int | None = None
    in_loop: bool = True


FUNCTIONS = (
    Function("ingest", "POST /e: takes events", Duration.seconds(29), ("light", "types"), 512, in_loop=False),
    Function("api", "The HTTP API, but for POST /e", Duration.seconds(29), API_LAYERS, 1024, in_loop=False),
    Function("route", "Stores events, starts runs, wakes waits", HANDLER_TIMEOUT, (*ENGINE_LAYERS, "types")),
    Function("advance", "Takes outcomes and timers, starts the next steps", HANDLER_TIMEOUT),
    Function("tick", "Every minute: far timers, cron triggers, runs that stand still", Duration.seconds(55)),
    Function("step_http", "Runs the steps with the runtime `http`", Duration.minutes(15), ("light",), 256),
    Function("register", "Registers functions that stacks hold", Duration.seconds(60), memory=512, in_loop=False),
)


class Functions(Construct):
    """`places`: ARNs by the words of the table in `roles`."""

    def __init__(self, scope: Construct, settings: Settings, code: EngineCode, places: Mapping[str, list[str]]) -> None:
        super().__init__(scope, "Functions")
        self._settings, self._code, self._places = settings, code, dict(places)
        self.by_name: dict[str, lambda_.Function] = {}
        # The others may invoke step_http, so that it is made before their roles.
        for function in sorted(FUNCTIONS, key=lambda its: its.name != "step_http"):
            self.by_name[function.name] = made = self._function(function)
            self._places.setdefault(function.name, [made.function_arn])

    def _function(self, its: Function) -> lambda_.Function:
        settings = self._settings
        scope = Construct(self, its.name)
        role = LambdaRole(scope, "Role", statements(its.name, settings), self._places)
        made = lambda_.Function(
            scope,
            "Function",
            description=f"Stepwell {settings.env}: {its.text}",
            code=self._code.code,
            handler=f"lambdas.{its.name}.handler",
            runtime=self._code.runtime,
            architecture=self._code.architecture,
            layers=[self._code.layers[name] for name in its.layers],
            memory_size=its.memory or settings.memory,
            timeout=its.timeout,
            role=role.without_policy_updates(),
            tracing=lambda_.Tracing.ACTIVE if settings.tracing else lambda_.Tracing.DISABLED,
            reserved_concurrent_executions=self._reserved(its.name),
            environment={"STEPWELL_ENV_NAME": settings.env},
        )
        if its.in_loop:
            cast(lambda_.CfnFunction, made.node.default_child).recursive_loop = "Allow"
        log = log_group(scope, "Log", settings, f"/aws/lambda/{made.function_name}")
        let_log(scope, role, log.log_group_arn)
        self._places[f"{its.name} log"] = [log.log_group_arn]
        return made

    def _reserved(self, name: str) -> int | None:
        reserved = {"route": self._settings.route_concurrency, "advance": self._settings.advance_concurrency}
        return reserved.get(name) if self._settings.reserved_concurrency else None

    # --- what starts them ------------------------------------------------------------------------------------------

    def connect(self, queues: Queues) -> None:
        """Queues to route and advance, the minute to tick, answers of step_http to `outcomes`."""
        self._read("route", queues.events.queue.queue_arn, self._settings.route_concurrency)
        self._read("advance", queues.outcomes.queue.queue_arn, self._settings.advance_concurrency)
        events.Rule(
            self,
            "EveryMinute",
            schedule=events.Schedule.rate(Duration.minutes(1)),
            targets=[targets.LambdaFunction(self.by_name["tick"], retry_attempts=0, max_event_age=Duration.minutes(1))],
        )
        self._invoked_by_engine(queues.outcomes.queue.queue_arn)

    def _read(self, name: str, queue: str, concurrency: int) -> None:
        lambda_.EventSourceMapping(
            self.by_name[name],
            "Queue",
            target=self.by_name[name],
            event_source_arn=queue,
            batch_size=self._settings.batch_size,
            max_concurrency=concurrency,
            report_batch_item_failures=True,
        )

    def _invoked_by_engine(self, outcomes: str) -> None:
        """As `stepwell push` does for the Lambdas of steps: Lambda retries nothing, the engine does."""
        to_outcomes = lambda_.CfnEventInvokeConfig.OnSuccessProperty(destination=outcomes)
        lambda_.CfnEventInvokeConfig(
            self.by_name["step_http"],
            "Answers",
            function_name=self.by_name["step_http"].function_name,
            qualifier="$LATEST",
            maximum_retry_attempts=0,
            maximum_event_age_in_seconds=self._settings.event_age_s,
            destination_config=lambda_.CfnEventInvokeConfig.DestinationConfigProperty(
                on_success=to_outcomes,
                on_failure=lambda_.CfnEventInvokeConfig.OnFailureProperty(destination=outcomes),
            ),
        )
