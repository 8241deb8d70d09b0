"""The page reference/definition.md: every field of a definition, from the models in `stepwell/core/definition`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tables import source, table

from stepwell.core.definition.definition import schema

INTRODUCTION = f"""\
# Definition

{source("the models in stepwell/core/definition/model.py and runtimes.py")}

A function is a folder with a *definition*: `stepwell.json`, `stepwell.yaml` or `stepwell.yml` (`inngest.json` is read,
too). This page lists every field. [Definition files](../guides/definition-files.md) shows how editors complete and check
them, and `stepwell validate` prints every mistake with file and line.

- An unknown field is an error. The message names the nearest valid field.
- `null` is the same as leaving the field out.
- The JSON Schema of this page is printed by `stepwell schema`. It is also in the repository:
  [schemas/function.schema.json](../../schemas/function.schema.json).

```yaml
id: welcome
triggers:
  - event: user/signed.up
    expression: user.email != ''
steps:
  greet:
    path: file://./greet.py
  nudge:
    path: file://./nudge.py
    after:
      - step: greet
        async:
          event: order/placed
          match: async.user.email == event.user.email
          ttl: 3d
          onTimeout: true
```

**Durations** are numbers with units: `500ms`, `10s`, `15m`, `1h30m`, `3d`, `2w`; at most 366 days. **Expressions** are
[CEL](expressions.md). **Ids** consist of `a-z`, `0-9` and `-`, start with a letter or digit, and have at most 64
characters.
"""

# Each section: the model in the JSON Schema, the heading, and what a reader must know beyond the fields.
SECTIONS: tuple[tuple[str, str, str], ...] = (
    ("", "The function", ""),
    (
        "Trigger",
        "`triggers[]`",
        "A trigger has either `event` or `cron`. An event starts at most one run of a function, however many of its "
        "triggers match. A prefix such as `order/*` never matches the names of the engine's own events, which begin "
        "with `stepwell/`. After a downtime, only the latest missed time of a `cron` starts a run.",
    ),
    (
        "EventDefinition",
        "`triggers[].definition`",
        "The type of an event can also stand in a file of its own: "
        "[types of events, beside functions](../guides/event-types-in-files.md).",
    ),
    (
        "Step",
        "`steps.<id>`",
        "The key is the step's id. A definition without `steps` has one step, `step-1`, with the path `file://.`. "
        "A path is relative to the definition and stays inside the function's folder. Values are set in this order, "
        "the later ones win: `.env` in the step's folder, `env`, `secrets`. No value of `.env` or of a secret is part "
        "of the version's hash. What belongs to a step's code: [the code of a step](step-code.md).",
    ),
    (
        "Edge",
        "`steps.<id>.after[]`",
        "An edge is *pending* until it is *satisfied* or *dead*. It is settled in this order: `on`, `if`, `wait`, "
        "`async`. The `ttl` counts from the end of the delay, and an event that came during the delay settles the edge "
        "at the end of it. The edges of a skipped step are dead.\n\n"
        "An `if` whose expression has no value, for example because a key is missing, fails the run with the error "
        "kind [`condition_failed`](error-kinds.md).\n\n"
        "A failure of a step is *handled* if one of the edges with `on: failure` or `on: always` that leave it has no "
        "`if`, or an `if` that is true. A failure that is not handled fails the run at once.",
    ),
    (
        "Until",
        "`steps.<id>.after[].wait`",
        "`wait` is a duration, or an object with this field. A time more than 366 days ahead, or an expression without a "
        "value, fails the run, as an `if` without a value does. The guide: "
        "[a delay until a time](../concepts/waits.md#a-delay-until-a-time).",
    ),
    (
        "Async",
        "`steps.<id>.after[].async`",
        "The edge waits for an event with exactly this name for which `match` is true. Edges of one run with equal "
        "parent, delay, event, match and ttl share one wait: of an edge and another one with `onTimeout: true`, exactly "
        "one is satisfied. The event must have been accepted after the event that started the run, and is not a "
        "replayed one. The earliest accepted event is taken.\n\n"
        "Write `match` as a comparison of a field of the event with a value of the run: such waits are found by an "
        "index, however many there are.",
    ),
    ("Retries", "`steps.<id>.retries`", ""),
    ("Backoff", "`steps.<id>.retries.backoff`", ""),
    (
        "Lambda",
        "`runtime` of type `lambda`",
        "The default. On one machine the step runs as a process. Without `command` and `handler`, Stepwell looks for "
        "`main.py`, `index.js`, `main.js`, `main.sh`, `bootstrap` or any executable `main` in the folder. At most one "
        "of `command`, `handler` and `arn` is given.",
    ),
    (
        "Docker",
        "`runtime` of type `docker`",
        "On one machine docker or podman runs the container, on AWS Fargate does.",
    ),
    ("Http", "`runtime` of type `http`", "The input is the body of a POST. Redirects are not followed."),
    (
        "Wasm",
        "`runtime` of type `wasm`",
        "The module gets the input and gives its output as a program does. It has the variables of `.env`, `env` and "
        "`secrets`, `TMPDIR` and `STEPWELL_INPUT`, and no others. On one machine it needs "
        "`pip install 'stepwell[wasm]'`. The guide: [WebAssembly](../guides/webassembly.md).",
    ),
    (
        "Faktory",
        "`runtime` of type `faktory`",
        "Workers of Faktory execute the step. An attempt stays queued until a worker fetches its queue, and `timeout` (1m to "
        "24h) is how long the worker has the job. Only on one machine. The guide: [Faktory](../guides/faktory.md).",
    ),
    ("Approval", "`runtime` of type `approval`", "The guide: [approvals](../guides/approvals.md)."),
    (
        "Emit",
        "`runtime` of type `emit`",
        "The step has no `path`, `env`, `secrets`, `retries` or `timeout`. How and when the event is sent: "
        "[send an event from a step](../concepts/steps.md#send-an-event-from-a-step).",
    ),
    (
        "Celery",
        "`runtime` of type `celery`",
        "Not on AWS. Needs `pip install 'stepwell[celery]'`. The guide: [Celery](../guides/celery.md).",
    ),
    ("Cancel", "`cancel[]`", "The guide: [flow control](../guides/flow-control.md)."),
    (
        "Concurrency",
        "`concurrency`",
        "One limit, or a list of up to three. The guide: "
        "[how many at a time](../guides/flow-control.md#concurrency-how-many-at-a-time).",
    ),
    (
        "Throttle",
        "`throttle`",
        "The guide: [starts spread over time](../guides/flow-control.md#throttle-starts-spread-over-time).",
    ),
    (
        "StepConcurrency",
        "`steps.<id>.concurrency`",
        "One limit, or a list of up to three. The guide: "
        "[how many at a time](../guides/flow-control.md#concurrency-how-many-at-a-time).",
    ),
    (
        "StepThrottle",
        "`steps.<id>.throttle`",
        "The guide: [starts spread over time](../guides/flow-control.md#throttle-starts-spread-over-time).",
    ),
    (
        "Timeouts",
        "`timeouts`",
        "At least one of the two is given. The guide: "
        "[limits for the time of a run](../guides/flow-control.md#timeouts-limits-for-the-time-of-a-run).",
    ),
    ("Singleton", "`singleton`", "The guide: [one run at a time](../guides/flow-control.md#one-run-at-a-time)."),
    (
        "RateLimit",
        "`rate_limit`",
        "The window is exact: starts at a time and a `period` later may both happen. The guide: "
        "[rate limit](../guides/flow-control.md#rate-limit).",
    ),
)

NAMES = {"EventPattern": "text", "string": "text", "integer": "whole number", "number": "number", "boolean": "boolean"}


def page() -> str:
    """The content of the page."""
    whole = schema()
    models = {"": whole, **whole["$defs"]}
    if missing := set(models) - {name for name, _, _ in SECTIONS}:
        raise ValueError(f"definition_page.py has no section for {', '.join(sorted(missing))}")
    return "\n".join([INTRODUCTION, *(_section(models[name], title, text) for name, title, text in SECTIONS)])


def _section(model: Mapping[str, Any], title: str, text: str) -> str:
    required = model.get("required", ())
    rows = [
        (f"`{name}`", _type(field), _default(name, field, required), _limits(field), _meaning(field))
        for name, field in model["properties"].items()
    ]
    about = "" if title == "The function" else f"{model['description']}\n"
    fields = table(("field", "type", "default", "limits", "meaning"), rows)
    return "\n".join(part for part in (f"## {title}\n", about, f"{text}\n" if text else "", fields) if part)


def _parts(field: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The alternatives of a field, without null."""
    return [part for part in field.get("anyOf", field.get("oneOf", [field])) if part.get("type") != "null"]


def _type(field: Mapping[str, Any]) -> str:
    return " or ".join(dict.fromkeys(_type_of(part) for part in _parts(field)))


def _type_of(part: Mapping[str, Any]) -> str:
    if "anyOf" in part:
        return " or ".join(_type_of(item) for item in part["anyOf"])
    if "oneOf" in part:
        return " or ".join(_type_of(item) for item in part["oneOf"])
    if "$ref" in part:
        return _link(part["$ref"].rsplit("/", 1)[1])
    if "const" in part:
        return f"`{part['const']}`"
    if "enum" in part:
        return " or ".join(f"`{value}`" for value in part["enum"])
    if part.get("type") == "array":
        return f"list of {_type_of(part['items'])}"
    if part.get("type") == "object":
        values = part.get("additionalProperties") or next(iter(part.get("patternProperties", {}).values()), {})
        return f"map to {_type_of(values)}" if values else "object"
    if "ms|s|m|h|d|w" in str(part.get("pattern")):
        return "duration"
    return NAMES.get(str(part.get("type")), "any JSON value")


def _link(name: str) -> str:
    title = next(title for model, title, _ in SECTIONS if model == name)
    anchor = "".join(c for c in title.lower() if c.isalnum() or c in " -_").replace(" ", "-")
    return f"[{name}](#{anchor})"


def _default(name: str, field: Mapping[str, Any], required: Any) -> str:
    if name in required:
        return "**required**"
    value = field.get("default")
    if value is None or value in ("", {}) or isinstance(value, dict):
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _limits(field: Mapping[str, Any]) -> str:
    return ", ".join(dict.fromkeys(text for part in (field, *_parts(field)) for text in _limits_of(part)))


def _limits_of(part: Mapping[str, Any]) -> Iterator[str]:
    low, high = part.get("minimum", part.get("exclusiveMinimum")), part.get("maximum")
    if low is not None and high is not None:
        yield f"{'above ' if 'exclusiveMinimum' in part else ''}{low:,} to {high:,}"
    if "maxLength" in part:
        yield f"{part['maxLength']:,} characters"
    for name, unit in (("maxItems", "items"), ("maxProperties", "entries")):
        if name in part:
            yield f"at most {part[name]:,} {unit}"
    if part.get("minItems"):
        yield f"at least {part['minItems']}"


def _meaning(field: Mapping[str, Any]) -> str:
    text = str(field.get("description", ""))
    example = next((example for part in (field, *_parts(field)) for example in part.get("examples", ())), None)
    if example is None:
        return text
    return f"{text} Example: `{example if isinstance(example, str) else json.dumps(example)}`"
