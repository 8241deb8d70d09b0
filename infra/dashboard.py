"""The CloudWatch dashboard: requests, lag, ended runs, costs.

It shows only metrics that AWS or the engine's Lambdas write anyway, so viewing it costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from infra.functions import Functions
from infra.ingest import Ingest
from infra.queues import Queues
from infra.settings import Settings
from infra.state import State
from stepwell.aws.observability import NAMESPACE
from stepwell.aws.topology import FUNCTIONS

RUN_METRICS = ("RunsCompleted", "RunsFailed", "RunsCancelled")
STEP_METRIC, LAG_METRIC, EVENTS_METRIC = "StepDuration", "MessageLag", "EventsAccepted"
INVALID_METRIC = "EventsInvalid"
SERVICE = "stepwell"  # a dimension of all these metrics, beside the environment
WIDTH, HEIGHT, IN_A_ROW = 8, 6, 3
FIVE_MINUTES = Duration.minutes(5)

# Prices in US dollars, us-east-1, on demand.
REQUEST, SQS_MESSAGE, WRITE, READ = 1e-6, 3 * 0.4e-6, 0.625e-6, 0.125e-6  # a message is sent, received and deleted
INVOCATION, GB_SECOND = 0.2e-6, {"arm64": 13.3334e-6, "x86_64": 16.6667e-6}
BUS_EVENT = 1e-6

Widget: TypeAlias = cloudwatch.GraphWidget


class Dashboard(Construct):
    def __init__(
        self,
        scope: Construct,
        settings: Settings,
        queues: Queues,
        state: State,
        functions: Functions,
        ingest: Ingest,
    ) -> None:
        super().__init__(scope, "Dashboard")
        self._settings, self._queues, self._state = settings, queues, state
        self._functions, self._ingest = functions.by_name, ingest
        self.dashboard = cloudwatch.Dashboard(self, "Dashboard", default_interval=Duration.hours(6))
        widgets = [self._rate(), self._lag(), self._dead_letters(), self._throttles(), self._engine(), self._cost()]
        if settings.metrics:
            widgets += [self._runs(), self._step_durations(), self._invalid()]
        for first in range(0, len(widgets), IN_A_ROW):
            self.dashboard.add_widgets(*widgets[first : first + IN_A_ROW])

    def _rate(self) -> Widget:
        return _graph("Requests and events", [self._ingest.api.metric_count(), *self._own(EVENTS_METRIC)])

    def _invalid(self) -> Widget:
        return _graph("Events that do not match their schemas", self._own(INVALID_METRIC))

    def _runs(self) -> Widget:
        return _graph("Runs that ended", self._own(*RUN_METRICS), stacked=True)

    def _lag(self) -> Widget:
        ages = [
            pair.queue.metric_approximate_age_of_oldest_message(label=f"oldest of {name}, s")
            for name, pair in self._queues.all.items()
        ]
        lags = [lag for statistic in ("p50", "p99") for lag in self._own(LAG_METRIC, statistic=statistic)]
        return Widget(
            title="Lag (timers wait in outcomes for up to 14 min)", left=lags, right=ages, width=WIDTH, height=HEIGHT
        )

    def _step_durations(self) -> Widget:
        statistics = ("p50", "p95", "p99")
        durations = [metric for statistic in statistics for metric in self._own(STEP_METRIC, statistic=statistic)]
        return _graph("Duration of attempts", durations)

    def _own(self, *names: str, statistic: str = "Sum") -> list[cloudwatch.Metric]:
        """Metrics that the engine's Lambdas write; none if the setting `metrics` is off."""
        dimensions = {"env": self._settings.env, "service": SERVICE}
        return [_metric(NAMESPACE, name, dimensions, statistic) for name in names if self._settings.metrics]

    def _dead_letters(self) -> Widget:
        return _graph(
            "Dead letters",
            [
                pair.dead_letters.metric_approximate_number_of_messages_visible(label=name)
                for name, pair in self._queues.all.items()
            ],
        )

    def _throttles(self) -> Widget:
        table = {"TableName": self._state.table.table_name}
        lambdas = [function.metric_throttles(label=name) for name, function in self._functions.items()]
        writes, reads = (_metric("AWS/DynamoDB", name, table) for name in ("WriteThrottleEvents", "ReadThrottleEvents"))
        return _graph("Throttled", [*lambdas, writes, reads])

    def _engine(self) -> Widget:
        durations = [
            function.metric_duration(label=f"{name} p95", statistic="p95")
            for name, function in self._functions.items()
            if name != "step_http"
        ]
        return _graph("Duration of the engine's Lambdas", durations)

    def _cost(self) -> Widget:
        """An estimate of the engine's cost per hour, without steps, storage and logs."""
        table = {"TableName": self._state.table.table_name}
        priced: list[tuple[cloudwatch.IMetric, float]] = [
            (self._ingest.api.metric_count(), REQUEST),
            (self._received("events"), SQS_MESSAGE + (BUS_EVENT if self._settings.ingest == "bus" else 0)),
            (self._received("outcomes"), SQS_MESSAGE),
            (_metric("AWS/DynamoDB", "ConsumedWriteCapacityUnits", table), WRITE),
            (_metric("AWS/DynamoDB", "ConsumedReadCapacityUnits", table), READ),
        ]
        for item in FUNCTIONS:
            function = self._functions[item.name]
            memory_gb = (item.memory_mb or self._settings.memory) / 1024
            priced.append((function.metric_invocations(), INVOCATION))
            a_millisecond = memory_gb * GB_SECOND[self._settings.architecture] / 1000
            priced.append((function.metric_duration(statistic="Sum"), a_millisecond))
        terms = " + ".join(f"FILL(m{i}, 0) * {price:.12f}" for i, (_, price) in enumerate(priced))
        cost = cloudwatch.MathExpression(
            expression=f"12 * ({terms})",
            label="US dollars an hour",
            using_metrics={f"m{i}": metric for i, (metric, _) in enumerate(priced)},
            period=FIVE_MINUTES,
        )
        return _graph("Cost of the engine (estimate, us-east-1)", [cost])

    def _received(self, queue: str) -> cloudwatch.Metric:
        return self._queues.all[queue].queue.metric_number_of_messages_sent(label=f"messages to {queue}")


def _metric(namespace: str, name: str, dimensions: dict[str, str], statistic: str = "Sum") -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace=namespace, metric_name=name, dimensions_map=dimensions, statistic=statistic, period=FIVE_MINUTES
    )


def _graph(title: str, metrics: Sequence[cloudwatch.IMetric], stacked: bool = False) -> Widget:
    return Widget(title=title, left=list(metrics), stacked=stacked, width=WIDTH, height=HEIGHT)
