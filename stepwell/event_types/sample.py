"""Generates example values of a schema.

Equal seeds give equal examples. An example is built from the keywords that describe a value, then checked against the
whole schema, and generated again if it is not valid.
"""

from __future__ import annotations

import math
import random
import string
from collections.abc import Callable
from typing import Any

from stepwell.event_types.alternatives import alternatives
from stepwell.event_types.constraints import Constraints
from stepwell.event_types.schema import Document, Schema, validator

_TRIES = 200
_DEEP = 6  # from this level on, only required fields are generated
_WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "juniper")
_FORMATS: dict[str, Callable[[random.Random], str]] = {
    "date-time": lambda r: f"{_date(r)}T{r.randrange(24):02}:{r.randrange(60):02}:{r.randrange(60):02}Z",
    "date": lambda r: _date(r),
    "time": lambda r: f"{r.randrange(24):02}:{r.randrange(60):02}:{r.randrange(60):02}Z",
    "duration": lambda r: f"PT{r.randrange(1, 60)}M",
    "email": lambda r: f"{r.choice(_WORDS)}@example.com",
    "hostname": lambda r: f"{r.choice(_WORDS)}.example.com",
    "uri": lambda r: f"https://example.com/{r.choice(_WORDS)}",
    "ipv4": lambda r: f"192.0.2.{r.randrange(1, 255)}",
    "ipv6": lambda r: f"2001:db8::{r.randrange(1, 9999)}",
    "uuid": lambda r: "-".join("".join(r.choices("0123456789abcdef", k=k)) for k in (8, 4, 4, 4, 12)),
}


class NoSample(ValueError):
    """No example could be generated for the schema."""


def sample(schema: Schema, seed: object = 0) -> Any:
    """A value that is valid under the schema, for which `refusals` must be empty. Raises NoSample."""
    root, found = Constraints((Document(schema).root,)), validator(schema)
    for attempt in range(_TRIES):
        value = _Sampler(random.Random(f"{seed}/{attempt}")).value(root, 0)
        if found.is_valid(value):
            return value
    raise NoSample(NoSample.__doc__)


class _Sampler:
    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def value(self, known: Constraints, depth: int) -> Any:
        branches = [branch for branch in alternatives(known) if not branch.is_empty]
        if branches:
            return self.value(branches[0] if depth > _DEEP else self._chance.choice(branches), depth)
        if known.values:
            return self._chance.choice(known.values)
        if examples := [example for schema in known.schemas for example in _examples(schema)]:
            return self._chance.choice(examples)
        kinds = known.kinds
        for preferred in ("object", "string", "integer"):  # a simple value if the schema allows many types
            if preferred in kinds and len(kinds) > 2:
                kinds = frozenset({preferred})
        return self._of(self._chance.choice(sorted(kinds)) if kinds else "null", known, depth)

    def _of(self, kind: str, known: Constraints, depth: int) -> Any:
        match kind:
            case "object":
                return self._object(known, depth)
            case "array":
                return self._list(known, depth)
            case "string":
                return self._text(known)
            case "integer" | "fraction":
                return self._number(known, whole=kind == "integer")
            case "boolean":
                return self._chance.random() < 0.5
        return None

    def _object(self, known: Constraints, depth: int) -> dict[str, Any]:
        names = [name for name in known.fields if not known.field(name).is_empty]
        wanted = [
            name for name in names if name not in known.required and depth < _DEEP and self._chance.random() < 0.6
        ]
        chosen = sorted(
            {*known.required, *wanted}, key=lambda name: (names.index(name) if name in names else 999, name)
        )
        most = known.at_most("maxProperties")
        while len(chosen) > max(most, len(known.required)):
            chosen.remove(self._chance.choice([name for name in chosen if name not in known.required]))
        spare = [name for name in names if name not in chosen]
        while len(chosen) < known.at_least("minProperties"):
            chosen.append(spare.pop(0) if spare else f"field{len(chosen) + 1}")
        return {name: self.value(known.field(name), depth + 1) for name in chosen}

    def _list(self, known: Constraints, depth: int) -> list[Any]:
        least = known.at_least("minItems")
        least = max(least, *(schema.get("minContains", 1) for schema in known.schemas if "contains" in schema), 0, 0)
        more = 0 if depth >= _DEEP else self._chance.randrange(3)
        count = int(min(max(least, known.prefix if depth < _DEEP else 0) + more, known.at_most("maxItems")))
        contains = [place.child("contains") for place in known.places if place.get("contains") is not None]
        items = [
            self.value(known.item(i).also(*(contains if i < least else ())), depth + 1) for i in range(min(count, 1000))
        ]
        if known.has("uniqueItems", True):
            items = [item for i, item in enumerate(items) if item not in items[:i]]
        return items

    def _text(self, known: Constraints) -> str:
        patterns = [schema["pattern"] for schema in known.schemas if "pattern" in schema]
        if patterns:
            return self._matching(self._chance.choice(patterns))
        formats = [schema["format"] for schema in known.schemas if schema.get("format") in _FORMATS]
        text = _FORMATS[formats[0]](self._chance) if formats else self._chance.choice(_WORDS)
        least, most = known.at_least("minLength"), known.at_most("maxLength")
        if len(text) < least:
            text += "".join(self._chance.choices(string.ascii_lowercase, k=min(least - len(text), 100_000)))
        return text[: int(most)] if most < len(text) else text

    def _matching(self, pattern: str) -> str:
        from rstr import Rstr  # imported late: few schemas have patterns

        try:
            return str(Rstr(self._chance).xeger(pattern))
        except Exception:  # the pattern is not valid in Python
            return self._chance.choice(_WORDS)

    def _number(self, known: Constraints, *, whole: bool) -> int | float:
        (low, low_out), (high, high_out) = known.least(), known.most()
        steps = [schema["multipleOf"] for schema in known.schemas if "multipleOf" in schema]
        if math.isinf(low):
            low = 0 if math.isinf(high) or high >= 0 else high - 100
        if math.isinf(high):
            high = low + 100
        if steps:
            step = math.lcm(*steps) if all(isinstance(step, int) for step in steps) else max(steps)
            first, last = math.ceil(low / step), math.floor(high / step)
            chosen = self._chance.randint(first, max(first, last)) * step
            return int(chosen) if whole else chosen
        if whole:
            first, last = math.ceil(low) + (low_out and low == math.ceil(low)), math.floor(high)
            last -= high_out and high == last
            return self._chance.randint(first, max(first, last))
        value = round(self._chance.uniform(low, high), 2)
        return value if low < value < high else self._chance.uniform(low, high)


def _examples(schema: dict[str, Any]) -> list[Any]:
    return [*schema.get("examples", []), *([schema["default"]] if "default" in schema else [])]


def _date(chance: random.Random) -> str:
    return f"2026-{chance.randrange(1, 13):02}-{chance.randrange(1, 29):02}"
