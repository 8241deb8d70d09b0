"""Counts the resources that cost money while no events come, from the template that CDK makes of an environment.

It needs Node, as `cdk` does. Custom metrics are counted in the code that writes them.
"""

from __future__ import annotations

import ast
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for infra/

from infra.settings import Settings  # noqa: E402
from stepwell.aws.observability import count, duration  # noqa: E402

_WRITERS = {count.__name__, duration.__name__}
_STATUSES = {"Runs": ("Completed", "Failed", "Cancelled"), "Attempts": ("Completed", "Failed", "Lost", "Cancelled")}


def standing(environments: dict[str, Settings]) -> dict[str, dict[str, Any]]:
    """The resources of each environment, by environment.

    Counts alarms, dashboards, event source mappings (and those with a maximum concurrency), tables with point-in-time
    recovery, Lambdas that log START, END and REPORT, and custom metrics.
    """
    import aws_cdk as cdk
    from aws_cdk.assertions import Template

    from infra.stack import StepwellStack

    with tempfile.TemporaryDirectory() as folder:
        app = cdk.App(outdir=folder)
        stacks = {name: StepwellStack(app, settings) for name, settings in environments.items()}
        templates = {name: Template.from_stack(stack).to_json() for name, stack in stacks.items()}
    return {name: counted(template) for name, template in templates.items()}


def counted(template: Any) -> dict[str, Any]:
    """Counts the resources of one template."""
    resources = list(template["Resources"].values())

    def of(kind: str) -> list[Any]:
        return [resource.get("Properties", {}) for resource in resources if resource["Type"] == f"AWS::{kind}"]

    mappings, functions = of("Lambda::EventSourceMapping"), of("Lambda::Function")
    return {
        "alarms": len(of("CloudWatch::Alarm")),
        "dashboards": len(of("CloudWatch::Dashboard")),
        "mappings": len(mappings),
        "mappings_with_maximum": sum("ScalingConfig" in mapping for mapping in mappings),
        "tables_with_recovery": sum(map(_can_be_restored, of("DynamoDB::Table"))),
        "system_logs": sorted(_name(function) for function in functions if _logs_reports(function)),
        "metrics": len(set(metrics())) if _writes_metrics(functions) else 0,
    }


def _can_be_restored(table: Any) -> bool:
    return table.get("PointInTimeRecoverySpecification", {}).get("PointInTimeRecoveryEnabled") is True


def _name(function: Any) -> str:
    """The function's name in `stepwell.aws.topology`; handlers are named `lambdas.NAME.handler`."""
    return str(function["Handler"].split(".")[1])


def _logs_reports(function: Any) -> bool:
    """Whether Lambda's own lines are logged. They have level INFO, so a system log level of WARN suppresses them
    (https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html)."""
    return function.get("LoggingConfig", {}).get("SystemLogLevel", "INFO") in ("DEBUG", "INFO")


def _writes_metrics(functions: list[Any]) -> bool:
    variables = [resource.get("Environment", {}).get("Variables", {}) for resource in functions]
    return any(resource.get("STEPWELL_METRICS", "true") != "false" for resource in variables)


def metrics() -> Iterator[str]:
    """The names of the engine's custom metrics. All have the same dimensions, so each name is one metric."""
    for path in sorted((ROOT / "stepwell" / "aws").rglob("*.py")):
        tree = ast.parse(path.read_text())
        imported = {
            name.asname or name.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "stepwell.aws.observability"
            for name in node.names
        }
        texts = {name.id: text for name, text in _constants(tree)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in imported & _WRITERS:
                argument = node.args[0]
                yield from _names(texts.get(argument.id, argument) if isinstance(argument, ast.Name) else argument)


def _constants(module: ast.Module) -> Iterator[tuple[ast.Name, ast.expr]]:
    for node in module.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0], node.value


def _names(text: ast.expr) -> list[str]:
    """The names that an expression can produce; one for each status, if the name contains a status."""
    if isinstance(text, ast.Constant):
        return [str(text.value)]
    prefix = next((str(part.value) for part in getattr(text, "values", ()) if isinstance(part, ast.Constant)), "")
    return [prefix + status for status in _STATUSES[prefix]]
