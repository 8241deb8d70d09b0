"""Compares keywords that contain no other schemas: types, values, bounds and sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from stepwell.core.definition.problems import Pointer, shown
from stepwell.event_types.constraints import ALL_KINDS, TYPES, Constraints, is_valid, kinds_of
from stepwell.event_types.schema import Place

_NUMBER, _STRING, _OBJECT, _ARRAY = TYPES["number"], TYPES["string"], TYPES["object"], TYPES["array"]


@dataclass(frozen=True, slots=True)
class Reason:
    """The reason why a value may be invalid under the target schema.

    `pointer` is a place in the target, `known` describes the values, `target` what the target requires.
    """

    pointer: Pointer
    field: str  # a.b[].c; empty for the value itself
    what: str
    known: str
    target: str
    additive: bool = False  # concerns only fields that one of the two schemas does not name


def refused_values(values: Iterable[object], target: Place, field: str) -> list[Reason]:
    """The reason that lists the values that the target rejects; empty if it accepts all."""
    refused = [value for value in values if not is_valid(target, value)]
    keyword = next((word for word in ("enum", "const", "type") if target.get(word) is not None), None)
    pointer = (*target.pointer, keyword) if keyword else target.pointer
    return [Reason(pointer, field, f"the value {_few(refused)}", "allowed", "refused")] if refused else []


def _type(known: Constraints, target: Place, field: str) -> Iterator[Reason]:
    assert isinstance(target.schema, dict)
    allowed = kinds_of(target.schema)
    if not known.kinds <= allowed:
        yield Reason((*target.pointer, "type"), field, "it", in_words(known.kinds), in_words(allowed))


def _enum(known: Constraints, target: Place, field: str) -> Iterator[Reason]:
    keyword = "enum" if target.get("enum") is not None else "const"
    wanted = target.schema["enum"] if keyword == "enum" else [target.schema["const"]]  # type: ignore[index]
    text = f"one of {_few(wanted)}"
    yield Reason((*target.pointer, keyword), field, "it", f"any {in_words(known.kinds)}", text)


def _bounds(known: Constraints, target: Place, field: str) -> Iterator[Reason]:
    for word, (bound, excluded), sign in (("minimum", known.least(), 1), ("maximum", known.most(), -1)):
        for keyword, excludes in ((word, False), (f"exclusive{word.capitalize()}", True)):
            wanted = target.get(keyword)
            if wanted is None or bound * sign > wanted * sign or (bound == wanted and excluded >= excludes):
                continue
            now = f"{wanted:g}{' (excluded)' if excludes else ''}"
            was = "without bound" if math.isinf(bound) else f"{bound:g}{' (excluded)' if excluded else ''}"
            yield Reason((*target.pointer, keyword), field, word, was, now)


def _multiple(known: Constraints, target: Place, field: str) -> Iterator[Reason]:
    wanted = target.get("multipleOf")
    given = [schema["multipleOf"] for schema in known.schemas if "multipleOf" in schema]
    given += [1] if "fraction" not in known.kinds else []
    if not any(g == wanted or (isinstance(g, int) and isinstance(wanted, int) and g % wanted == 0) for g in given):
        was = f"{given[0]:g}" if given else "none"
        yield Reason((*target.pointer, "multipleOf"), field, "multipleOf", was, f"{wanted:g}")


def _sizes(known: Constraints, target: Place, field: str) -> Iterator[Reason]:
    for unit, kinds in (("Length", _STRING), ("Items", _ARRAY), ("Properties", _OBJECT)):
        least, most = (target.get(f"{word}{unit}") for word in ("min", "max"))
        at_least, at_most = known.at_least(f"min{unit}"), known.at_most(f"max{unit}")
        if known.kinds & kinds and at_least < (least or 0):
            yield Reason((*target.pointer, f"min{unit}"), field, f"min{unit}", str(at_least), str(least))
        if known.kinds & kinds and most is not None and at_most > most:
            was = "without bound" if math.isinf(at_most) else f"{at_most:g}"
            yield Reason((*target.pointer, f"max{unit}"), field, f"max{unit}", was, str(most))


def _text(known: Constraints, target: Place, field: str) -> Iterator[Reason]:
    for keyword in ("pattern", "format"):
        wanted = target.get(keyword)
        if wanted is not None and not known.has(keyword, wanted):
            given = next((shown(s[keyword]) for s in known.schemas if keyword in s), "free")
            yield Reason((*target.pointer, keyword), field, keyword, given, shown(wanted))


def _unique(known: Constraints, target: Place, field: str) -> Iterator[Reason]:
    if target.get("uniqueItems") and not known.has("uniqueItems", True) and known.at_most("maxItems") > 1:
        yield Reason((*target.pointer, "uniqueItems"), field, "items", "free to be equal", "all different")


def _required(known: Constraints, target: Place, field: str) -> Iterator[Reason]:
    for name in target.get("required"):
        if name not in known.required:
            yield Reason((*target.pointer, "required"), below(field, name), "it", "optional", "required")


def _dependent(known: Constraints, target: Place, field: str) -> Iterator[Reason]:
    for name, wanted in target.get("dependentRequired").items():
        implied = known.required.union(*(s.get("dependentRequired", {}).get(name, ()) for s in known.schemas))
        missing = ", ".join(sorted(set(wanted) - implied))
        if missing and not known.field(name).is_empty:
            pointer = (*target.pointer, "dependentRequired", name)
            yield Reason(pointer, below(field, name), "it", "allowed alone", f"allowed only with {missing}")


def below(field: str, name: str) -> str:
    """The path of a field below another field."""
    return f"{field}.{name}" if field else name


def _few(values: list[object]) -> str:
    return ", ".join(map(shown, values[:5])) + (", ..." if len(values) > 5 else "")


def in_words(kinds: frozenset[str]) -> str:
    """Kinds as text, such as "number or null"."""
    if kinds == ALL_KINDS:
        return "anything"
    names = sorted(kinds - {"integer"} if "fraction" in kinds else kinds)
    return " or ".join("number" if name == "fraction" else name for name in names) or "nothing"


Check = Callable[[Constraints, Place, str], Iterable[Reason]]
"""Takes the known constraints of a value, the target schema and the field; returns the reasons against the value."""

LIMITS: dict[str, tuple[frozenset[str], Check]] = {
    "type": (ALL_KINDS, _type),
    **dict.fromkeys(("enum", "const"), (ALL_KINDS, _enum)),
    **dict.fromkeys(("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"), (_NUMBER, _bounds)),
    "multipleOf": (_NUMBER, _multiple),
    **dict.fromkeys(("minLength", "maxLength"), (_STRING, _sizes)),
    **dict.fromkeys(("minItems", "maxItems"), (_ARRAY, _sizes)),
    **dict.fromkeys(("minProperties", "maxProperties"), (_OBJECT, _sizes)),
    **dict.fromkeys(("pattern", "format"), (_STRING, _text)),
    "uniqueItems": (_ARRAY, _unique),
    "required": (_OBJECT, _required),
    "dependentRequired": (_OBJECT, _dependent),
}
"""By keyword: the kinds of values that it limits, and the check."""
