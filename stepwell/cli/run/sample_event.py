"""The event that `stepwell run` makes if none is given: an example of what the function's first trigger starts on.

One rule: what is printed with it makes the same event again.
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

_TRIES = 200  # to make one that the trigger's expression is true of


def sample_event(function: LoadedFunction, path: Path, seed: int | None) -> dict[str, Any]:
    """An event for the function's first trigger, by the trigger's schema or that of a schemas/ folder; a cron function
    gets its tick. Without a schema, it has nothing but its name."""
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
        fail(f"no example of {name} could be made from its schema; give one with --event")
    stderr.print(f"made an event from the schema of {name}; --seed {seed} makes it again:", markup=False, style="dim")
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
    """The first example that starts the function; if none of many does, the very first."""
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

    made = sample(schema, seed)
    if not isinstance(made, dict):
        raise NoSample(f"it is not an object: {made}")
    if describes(schema) == "data":
        return {"name": name, "data": made}
    return {**{key: made[key] for key in ("data", "user") if key in made}, "name": name}
