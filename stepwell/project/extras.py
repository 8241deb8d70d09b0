"""Libraries that steps and sources need. Each is an extra of this package, and may be missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from stepwell.extras import is_installed

if TYPE_CHECKING:
    from stepwell.project.load import LoadedFunction
    from stepwell.project.rule_files import RuleFile
    from stepwell.project.source import PlacedProblem

NEEDS_WASMTIME = "WebAssembly steps need wasmtime, which is not installed; run: pip install 'stepwell[wasm]'"
OF_SOURCES = {
    "celery": ("celery", "celery"),
    "kafka": ("confluent_kafka", "kafka"),
    "pubsub": ("google.pubsub_v1", "pubsub"),
    "rabbitmq": ("kombu", "rabbitmq"),
    "redis": ("redis", "redis"),
    "sqs": ("boto3", "aws"),
}
"""By type: the module that reads it, and the extra of this package that installs the module."""

_OF_ADDRESSES = {  # of Celery, by scheme: module, and what installs it
    "redis": ("redis", "stepwell[celery]"),
    "rediss": ("redis", "stepwell[celery]"),
    "sentinel": ("redis", "stepwell[celery]"),
    "sqs": ("boto3", "celery[sqs]"),
}


def missing_for_celery(*addresses: str) -> str | None:
    """What must be installed for a step that is a task of Celery; None if nothing is missing.

    `addresses`: of the broker and the backend, in which `${NAME}` may stand for a part."""
    if not is_installed("celery"):
        return "the runtime celery needs the package celery; run: pip install 'stepwell[celery]'"
    for address in addresses:
        scheme = address.partition("://")[0]
        module, package = _OF_ADDRESSES.get(scheme, ("", ""))
        if module and not is_installed(module):
            return f"addresses with {scheme}:// need the package {module}; run: pip install '{package}'"
    return None


def missing_for_wasm() -> str | None:
    """What must be installed for steps that are WebAssembly modules; None if nothing is missing."""
    return None if is_installed("wasmtime") else NEEDS_WASMTIME


def missing_for_source(kind: str) -> str | None:
    """What must be installed for sources of this type; None if nothing is missing."""
    module, extra = OF_SOURCES[kind]
    return None if is_installed(module) else f"sources of type {kind} need a library: pip install 'stepwell[{extra}]'"


def missing_for_functions(functions: Iterable[LoadedFunction]) -> list[PlacedProblem]:
    """What must be installed for the steps of functions, with the places of these steps."""
    found = []
    for function in functions:
        for step_id, step in function.definition.steps.items():
            runtime, reason = step.runtime, None
            if runtime.type == "celery":
                reason = missing_for_celery(runtime.broker, runtime.backend or "")
            elif runtime.type == "wasm":
                reason = missing_for_wasm()
            if reason is not None:
                found.append(function.placed(("steps", step_id, "runtime"), reason))
    return found


def missing_for_sources(sources: Sequence[RuleFile]) -> list[PlacedProblem]:
    """What must be installed for sources, with the files of these."""
    reasons = ((source, missing_for_source(source.rule["type"])) for source in sources)
    return [source.placed(("type",), reason) for source, reason in reasons if reason is not None]
