"""Generates the event for `stepwell run` if none is given: an example that the function's first trigger accepts.

The seed is printed with the event, and generates the same event again.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from stepwell.cli.ui.output import fail, stderr

if TYPE_CHECKING:
    from stepwell.event_types.schema import Schema
    from stepwell.project.load import LoadedFunction

_TRIES = 200  # examples to generate until one satisfies the trigger's expression


def sample_event(function: LoadedFunction, path: Path, seed: int | None) -> dict[str, Any]:
    """An event for the function's first trigger; for a cron trigger, a tick.

    The data is generated from the schema in the trigger or in a schemas/ folder. Without a schema, the event has only a
    name.
    """
    trigger = function.normalised()["triggers"][0]
    name = trigger.get("event", "stepwell/scheduled.timer")
    schema = _schema(trigger, path)
    if schema is None:
        return {"name": name}
    from stepwell.event_types.sample import NoSample

    seed = random.SystemRandom().randrange(10_000) if seed is None else seed
    try:
        event = _example(name, schema, trigger.get("expression"), seed)
    except NoSample:
        fail(f"cannot generate an example of {name} from the schema; pass an event with --event")
    message = f"generated an event from the schema of {name}; --seed {seed} generates it again:"
    stderr.print(message, markup=False, style="dim")
    stderr.print(orjson.dumps(event).decode(), markup=False, soft_wrap=True, style="dim")
    return event


def _schema(trigger: dict[str, Any], path: Path) -> Schema | None:
    if "event" not in trigger:
        return None
    if "definition" in trigger:
        schema: Schema = trigger["definition"]["def"]
        return schema
    from stepwell.project.schemas import find_types

    versions = find_types([path]).by_name().get(trigger["event"])
    return versions[-1].schema if versions else None


def _example(name: str, schema: Schema, expression: str | None, seed: int) -> dict[str, Any]:
    """The first generated example that satisfies the trigger's expression; if none does, the first example."""
    from stepwell.core.cel.expressions import Bindings, Scope, compile_expression

    first = _event(name, schema, f"{seed}")
    if expression is None:
        return first
    starts = compile_expression(expression, Scope.TRIGGER)
    for attempt in range(_TRIES):
        event = first if attempt == 0 else _event(name, schema, f"{seed}/{attempt}")
        if starts.evaluate(Bindings({"id": "", "ts": 0, "v": None, "user": {}, **event})).holds:
            return event
    return first


def _event(name: str, schema: Schema, seed: str) -> dict[str, Any]:
    from stepwell.event_types.described import describes
    from stepwell.event_types.sample import NoSample, sample

    example = sample(schema, seed)
    if not isinstance(example, dict):
        raise NoSample(f"the example is not an object: {example}")
    if describes(schema) == "data":
        return {"name": name, "data": example}
    return {**{key: example[key] for key in ("data", "user") if key in example}, "name": name}
