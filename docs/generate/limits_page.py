"""The page reference/limits.md: the limits that users meet, from the constants in the code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tables import source, table

from stepwell.api.paging import MAX_LIMIT
from stepwell.api.v1 import replay
from stepwell.aws.deploy import packaging
from stepwell.core import json_input
from stepwell.core.cel.limits import MAX_SOURCE_BYTES
from stepwell.core.definition.definition import schema
from stepwell.core.definition.flow_control import MOST_STARTS
from stepwell.core.duration import LONGEST_MS
from stepwell.core.events import users
from stepwell.core.events.envelope import MAX_EVENT_BYTES
from stepwell.core.events.request import MAX_BODY_BYTES, MAX_EVENTS
from stepwell.core.run import approvals
from stepwell.core.run.attempt_result import MAX_LOSSES
from stepwell.core.run.inputs import MAX_INPUT_BYTES
from stepwell.core.run.outcome import MAX_OUTPUT_BYTES
from stepwell.core.webhooks import form
from stepwell.event_types import changes, validation
from stepwell.local.http.connection import MAX_HEAD_BYTES
from stepwell.local.http.http2_settings import MOST_STREAMS
from stepwell.local.runners.program import MAX_ARGUMENT_BYTES
from stepwell.local.runners.router import MAX_LOG_BYTES
from stepwell.project import code

INTRODUCTION = f"""\
# Limits

{source("the constants in the code that docs/generate/limits_page.py imports")}

Nothing is ever cut without notice, except logs. What is over a limit is refused with a message that names the limit.
[Definition](definition.md) has the limits of single fields, [HTTP](../operate/http.md) those of connections, and
[sizing](../operate/sizing.md) what one machine carries.
"""


def _bytes(number: int) -> str:
    return f"{number // 1024 // 1024} MiB" if number % (1024 * 1024) == 0 else f"{number // 1024} KiB"


_EVENTS = (
    ("an event, as JSON", _bytes(MAX_EVENT_BYTES), "413"),
    ("events in a request", f"{MAX_EVENTS:,}", "413"),
    ("a request, also uncompressed", _bytes(MAX_BODY_BYTES), "413"),
    ("levels of nesting in JSON", f"{json_input.MAX_LEVELS}", "400"),
    ("objects and arrays in one JSON text", f"{json_input.MAX_CONTAINERS:,}", "413"),
    ("an event's name and id", "256 characters each", "400"),
    ("de-duplication by an event's `id`", "24 hours at least", "a duplicate is accepted and starts nothing"),
    ("fields of a form that a webhook gets", f"{form.MOST_FIELDS:,}", "413"),
    ("the head of an HTTP request", _bytes(MAX_HEAD_BYTES), "431"),
    ("HTTP/2 streams of a connection", f"{MOST_STREAMS}", "`REFUSED_STREAM`"),
    ("entries of a page of a list", f"{MAX_LIMIT:,}", "400"),
    ("events in a request to replay", f"{replay.MAX_EVENTS}", "400"),
)
_STEPS = (
    ("a step's output", _bytes(MAX_OUTPUT_BYTES), "the attempt fails: [`output_too_large`](error-kinds.md)"),
    ("a step's whole input", _bytes(MAX_INPUT_BYTES), "the step fails: [`input_too_large`](error-kinds.md)"),
    (
        "the input as an argument",
        _bytes(MAX_ARGUMENT_BYTES),
        "the argument is `@` and a file's name; see [step contract](step-contract.md)",
    ),
    ("the logs of an attempt", _bytes(MAX_LOG_BYTES), "cut, with a line that says so"),
    ("losses of one step", f"{MAX_LOSSES}", "the last one is a final failure: [`lost`](error-kinds.md)"),
    (
        "a step of type `lambda` or `http` on AWS",
        f"{packaging.LONGEST_MS // 60_000} minutes",
        "refused by a push; use `docker`",
    ),
    ("a comment on an approval", f"{approvals.MOST_COMMENT:,} characters", "400"),
)
_TYPES = (
    ("a schema", _bytes(validation.MAX_SCHEMA_BYTES), "refused"),
    ("versions of a type", f"{changes.MOST_VERSIONS}", "refused"),
    ("types of a server", f"{changes.MOST_TYPES:,}", "refused"),
)
_USERS = (
    ("ids of a user", f"{users.MOST_IDS}", "a further id stays a user of its own"),
    ("traits of a user", f"{users.MOST_TRAITS}", "further ones are not kept"),
)


def page() -> str:
    """The content of the page."""
    sections = {
        "Events and requests": _EVENTS,
        "Definitions": _definition_rows(),
        "Steps": _STEPS,
        "Types of events": _TYPES,
        "Users": _USERS,
    }
    return "\n".join([INTRODUCTION, *(_section(title, rows) for title, rows in sections.items())])


def _definition_rows() -> Sequence[Sequence[str]]:
    fields = schema()["properties"]
    most_rules, most_steps = _limit(fields["cancel"], "maxItems"), _limit(fields["steps"], "maxProperties")
    return (
        ("steps of a function", f"{most_steps:,}", "refused when loaded"),
        ("starts in a period of `rate_limit`", f"{MOST_STARTS:,}", "refused when loaded"),
        ("rules of `cancel`", f"{most_rules}", "refused when loaded"),
        ("a duration: `wait`, `ttl`, `timeout`", f"{LONGEST_MS // 86_400_000} days", "refused when loaded"),
        ("an expression", _bytes(MAX_SOURCE_BYTES), "refused when loaded; see [expressions](expressions.md)"),
        ("a step's code", f"{code.LARGEST // 1024 // 1024} MB, {code.MOST_FILES:,} files", "refused when loaded"),
    )


def _limit(field: dict[str, Any], name: str) -> int:
    """A limit of a field in the JSON Schema, which may stand in one of its alternatives."""
    found: int = next(part[name] for part in [field, *field.get("anyOf", ())] if name in part)
    return found


def _section(title: str, rows: Sequence[Sequence[str]]) -> str:
    return f"## {title}\n\n{table(('what', 'at most', 'beyond'), rows)}"
