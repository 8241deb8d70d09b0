"""Whether each value of one schema is valid under another, and if not, why not.

One rule: nothing is contained unless it is proven. What cannot be decided counts as a reason ("cannot be compared").

The proof goes through the keywords of the schema that must take the values (the *target*), each against all that is
*known* of the values. A circle of `$ref`s is contained if nothing on the way round speaks against it (coinduction, as
for recursive types: Amadio and Cardelli, Subtyping recursive types, 1993).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from stepwell.core.definition.problems import Pointer, shown
from stepwell.event_types.alternatives import TEXT, alternatives, apart, by_kind, choices
from stepwell.event_types.known import ALL_KINDS, TYPES, Known, is_readable, is_valid, kinds_of, matches
from stepwell.event_types.sameness import Sameness
from stepwell.event_types.schema import Place, conjunction

_MOST_STEPS = 1_500
_MOST_COMPARED = 20_000  # pairs of alternatives
_DEEPEST = 50
_UNCLEAR = ("unevaluatedProperties", "unevaluatedItems", "$dynamicRef")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a value may be refused: the place in the target, the field, and what the values are and the target wants."""

    pointer: Pointer
    field: str  # a.b[].c; empty for the value itself
    what: str
    known: str
    target: str
    additive: bool = False  # only for fields that one of the two does not name


class Containment:
    """The comparison of two schemas, in one direction. `target_is_newer`: which of the two names the newer fields."""

    def __init__(self, target_is_newer: bool) -> None:
        self._newer = target_is_newer
        self._found: dict[tuple[Known, Place], list[Reason]] = {}
        self._same = Sameness()
        self._steps = self._depth = self._compared = 0

    def reasons(self, known: Known, target: Place, field: str = "") -> list[Reason]:
        """Why a value that `known` describes may be invalid under `target`; empty if it cannot be."""
        key = (known, target)
        if key in self._found:
            return self._found[key]
        self._steps += 1 + len(known.places) // 10  # what is known is gone through again at each step
        if self._steps > _MOST_STEPS or self._depth > _DEEPEST:
            return [Reason(target.pointer, field, "the schemas are too large to be compared", "", "")]
        self._found[key] = []  # on the way round a circle nothing speaks against it
        before = len(self._found)
        self._depth += 1
        result = self._reasons(known, target, field)
        self._depth -= 1
        if result:  # then what was found to be contained on the way may have relied on this
            for other in list(self._found)[before:]:
                if not self._found[other]:
                    del self._found[other]
        self._found[key] = result
        return result

    def _reasons(self, known: Known, target: Place, field: str) -> list[Reason]:
        if target.schema is True or target.schema == {} or known.is_empty:
            return []
        if any(self._same(place, target) for place in known.places):
            return []
        if target.schema is False:
            return [Reason(target.pointer, field, "it", "allowed", "refused")]
        if known.values is not None and not any(place.get("format") for place in conjunction(target)):
            return self._values(known, target, field)
        branches = alternatives(known)
        found = [] if branches and _has_choices(target) else self._keywords(known, target, field)
        if not branches or not (found or _has_choices(target)):
            return found
        apart = [reason for branch in branches for reason in self.reasons(branch, target, field)]
        return list(dict.fromkeys(apart))

    def _values(self, known: Known, target: Place, field: str) -> list[Reason]:
        refused = [value for value in known.values or () if not is_valid(target, value)]
        if not refused:
            return []
        what = "the value " + ", ".join(shown(value) for value in refused[:5]) + (", ..." if len(refused) > 5 else "")
        keyword = next((word for word in ("enum", "const", "type") if target.get(word) is not None), None)
        pointer = (*target.pointer, keyword) if keyword else target.pointer
        return [Reason(pointer, field, what, "allowed", "refused")]

    def _keywords(self, known: Known, target: Place, field: str) -> list[Reason]:
        assert isinstance(target.schema, dict)
        found: list[Reason] = []
        for keyword in target.schema:
            check = _CHECKS.get(keyword)
            kinds = _KINDS.get(keyword, ALL_KINDS)
            if check is not None and known.kinds & kinds:
                found += check(self, known, target, field)
        return list(dict.fromkeys(found))

    # --- schemas in schemas ---

    def _ref(self, known: Known, target: Place, field: str) -> list[Reason]:
        to = target.document.target(target.get("$ref"))
        if to is None:
            return [_unclear(target, field, "$ref")]
        return self.reasons(known, to, field)

    def _all_of(self, known: Known, target: Place, field: str) -> list[Reason]:
        return [
            r for i in range(len(target.get("allOf"))) for r in self.reasons(known, target.child("allOf", i), field)
        ]

    def _any_of(self, known: Known, target: Place, field: str) -> list[Reason]:
        every = [choice for choice in choices(target, "anyOf") if not self._apart(known, choice)]
        tried = [self.reasons(known, choice, field) for choice in every]
        if not all(tried):
            return []
        kinds = by_kind(known)
        if kinds and all(not self._any_of(one, target, field) for one in kinds):
            return []
        return self._no_choice(target, field, "anyOf", tried)

    def _one_of(self, known: Known, target: Place, field: str) -> list[Reason]:
        """The others are apart, or were they not, more than one may hold."""
        every = [choice for choice in choices(target, "oneOf") if not self._apart(known, choice)]
        if len(every) == 1:
            return self.reasons(known, every[0], field)
        kinds = by_kind(known)
        if kinds and all(not self._one_of(one, target, field) for one in kinds):
            return []
        tried = [self.reasons(known, choice, field) for choice in every]
        if not all(tried):
            return [_unclear(target, field, "oneOf", "several alternatives may hold")]
        return self._no_choice(target, field, "oneOf", tried)

    def _apart(self, known: Known, other: Place) -> bool:
        self._compared += 1
        return self._compared <= _MOST_COMPARED and apart(known, other, self._same)

    def _no_choice(self, target: Place, field: str, keyword: str, tried: list[list[Reason]]) -> list[Reason]:
        if len(tried) == 1:
            return tried[0]
        return [
            Reason((*target.pointer, keyword), field, "each of its alternatives", "allowed", "not taken by one of them")
        ]

    def _not(self, known: Known, target: Place, field: str) -> list[Reason]:
        return [] if self._apart(known, target.child("not")) else [_unclear(target, field, "not")]

    def _if(self, known: Known, target: Place, field: str) -> list[Reason]:
        ways = [target.child(word) for word in ("then", "else") if target.get(word) is not None]
        if all(not self.reasons(known, way, field) for way in ways):
            return []
        return [_unclear(target, field, "if")]

    def _not_understood(self, known: Known, target: Place, field: str) -> list[Reason]:
        words = [word for word in _UNCLEAR if target.get(word) not in (None, True, {})]
        return [_unclear(target, field, word) for word in words]

    # --- values ---

    def _type(self, known: Known, target: Place, field: str) -> list[Reason]:
        assert isinstance(target.schema, dict)
        allowed = kinds_of(target.schema)
        if known.kinds <= allowed:
            return []
        return [Reason((*target.pointer, "type"), field, "it", in_words(known.kinds), in_words(allowed))]

    def _enum(self, known: Known, target: Place, field: str) -> list[Reason]:
        keyword = "enum" if target.get("enum") is not None else "const"
        wanted = target.schema["enum"] if keyword == "enum" else [target.schema["const"]]  # type: ignore[index]
        text = "one of " + ", ".join(shown(value) for value in wanted[:5]) + (", ..." if len(wanted) > 5 else "")
        return [Reason((*target.pointer, keyword), field, "it", f"any {in_words(known.kinds)}", text)]

    def _least(self, known: Known, target: Place, field: str) -> list[Reason]:
        return list(self._bounds(known, target, field, ("minimum", "exclusiveMinimum"), known.least(), 1))

    def _most(self, known: Known, target: Place, field: str) -> list[Reason]:
        return list(self._bounds(known, target, field, ("maximum", "exclusiveMaximum"), known.most(), -1))

    def _bounds(
        self, known: Known, target: Place, field: str, keywords: tuple[str, str], bound: tuple[float, bool], sign: int
    ) -> Iterator[Reason]:
        value, excluded = bound
        for keyword, excludes in zip(keywords, (False, True), strict=True):
            wanted = target.get(keyword)
            if wanted is None:
                continue
            if value * sign < wanted * sign or (value == wanted and excludes and not excluded):
                was = "without bound" if math.isinf(value) else f"{value:g}{' (excluded)' if excluded else ''}"
                now = f"{wanted:g}{' (excluded)' if excludes else ''}"
                yield Reason((*target.pointer, keyword), field, f"its {keywords[0]}", was, now)

    def _multiple(self, known: Known, target: Place, field: str) -> list[Reason]:
        wanted = target.get("multipleOf")
        given = [schema["multipleOf"] for schema in known.schemas if "multipleOf" in schema]
        given += [1] if "fraction" not in known.kinds else []
        whole = [
            g for g in given if g == wanted or (isinstance(g, int) and isinstance(wanted, int) and g % wanted == 0)
        ]
        if whole:
            return []
        was = f"{given[0]:g}" if given else "none"
        return [Reason((*target.pointer, "multipleOf"), field, "its multipleOf", was, f"{wanted:g}")]

    def _sizes(self, known: Known, target: Place, field: str) -> list[Reason]:
        found = []
        for keyword in ("minLength", "minItems", "minProperties"):
            wanted = target.get(keyword)
            if wanted and known.kinds & _KINDS[keyword] and (has := known.at_least(keyword)) < wanted:
                found.append(Reason((*target.pointer, keyword), field, f"its {keyword}", str(has), str(wanted)))
        for keyword in ("maxLength", "maxItems", "maxProperties"):
            wanted = target.get(keyword)
            if wanted is not None and known.kinds & _KINDS[keyword] and (had := known.at_most(keyword)) > wanted:
                was = "without bound" if math.isinf(had) else f"{had:g}"
                found.append(Reason((*target.pointer, keyword), field, f"its {keyword}", was, str(wanted)))
        return found

    def _text(self, known: Known, target: Place, field: str) -> list[Reason]:
        found = []
        for keyword in ("pattern", "format"):
            wanted = target.get(keyword)
            if wanted is None or known.has(keyword, wanted):
                continue
            given = next((s[keyword] for s in known.schemas if keyword in s), None)
            pointer = (*target.pointer, keyword)
            found.append(Reason(pointer, field, f"its {keyword}", shown(given) if given else "free", shown(wanted)))
        return found

    def _unique(self, known: Known, target: Place, field: str) -> list[Reason]:
        if not target.get("uniqueItems") or known.has("uniqueItems", True) or known.at_most("maxItems") <= 1:
            return []
        return [Reason((*target.pointer, "uniqueItems"), field, "its items", "free to be equal", "all different")]

    # --- fields ---

    def _required(self, known: Known, target: Place, field: str) -> list[Reason]:
        missing = [name for name in target.get("required") if name not in known.required]
        at = (*target.pointer, "required")
        return [Reason(at, _below(field, name), "it", "optional", "required") for name in missing]

    def _properties(self, known: Known, target: Place, field: str) -> list[Reason]:
        found: list[Reason] = []
        for name in target.get("properties"):
            new = self._newer and name not in known.fields and not any(matches(p, name) for p in known.patterns)
            reasons = self.reasons(known.field(name), target.child("properties", name), _below(field, name))
            found += [_additive(reason) for reason in reasons] if new else reasons
        return found

    def _patterns(self, known: Known, target: Place, field: str) -> list[Reason]:
        found: list[Reason] = []
        for pattern in target.get("patternProperties"):
            if not is_readable(pattern):
                found.append(_unclear(target, field, "patternProperties"))
                continue
            place, below = target.child("patternProperties", pattern), _below(field, f"/{pattern}/")
            for name in known.fields:
                if matches(pattern, name):
                    found += self.reasons(known.field(name), place, _below(field, name))
            found += self.reasons(known.matching_fields(pattern), place, below)
        return found

    def _other_fields(self, known: Known, target: Place, field: str) -> list[Reason]:
        place = target.child("additionalProperties")
        patterns = target.get("patternProperties") or {}
        if not all(map(is_readable, patterns)):
            return [_unclear(target, field, "patternProperties")]
        named = target.get("properties") or {}
        found: list[Reason] = []
        for name in known.fields:
            if name in named or any(matches(pattern, name) for pattern in patterns):
                continue
            reasons = self.reasons(known.field(name), place, _below(field, name))
            found += reasons if self._newer else [_additive(reason) for reason in reasons]
        for pattern in known.patterns:
            if pattern not in patterns:
                found += self.reasons(known.matching_fields(pattern), place, _below(field, f"/{pattern}/"))
        reasons = self.reasons(known.other_fields(patterns), place, _below(field, "*"))
        return found + (reasons if self._newer else [_additive(reason) for reason in reasons])

    def _names(self, known: Known, target: Place, field: str) -> list[Reason]:
        names = Known(tuple(p.child("propertyNames") for p in known.places if p.get("propertyNames") is not None))
        place = target.child("propertyNames")
        closed = known.other_fields(()).is_empty and not known.patterns
        if closed and all(is_valid(place, name) for name in known.fields):
            return []
        return [] if not self._text_in(names, place, field) else [_unclear(target, field, "propertyNames")]

    def _text_in(self, names: Known, place: Place, field: str) -> list[Reason]:
        return self.reasons(names.also(TEXT), place, field)

    def _dependent(self, known: Known, target: Place, field: str) -> list[Reason]:
        found = []
        for name, wanted in target.get("dependentRequired").items():
            implied = set(known.required).union(*(s.get("dependentRequired", {}).get(name, ()) for s in known.schemas))
            if known.field(name).is_empty or set(wanted) <= implied:
                continue
            pointer = (*target.pointer, "dependentRequired", name)
            also = ", ".join(sorted(set(wanted) - implied))
            found.append(Reason(pointer, _below(field, name), "it", "allowed alone", f"allowed with {also} only"))
        return found

    def _dependent_schemas(self, known: Known, target: Place, field: str) -> list[Reason]:
        for name in target.get("dependentSchemas"):
            if not known.field(name).is_empty and self.reasons(known, target.child("dependentSchemas", name), field):
                return [_unclear(target, field, "dependentSchemas")]
        return []

    # --- items ---

    def _items(self, known: Known, target: Place, field: str) -> list[Reason]:
        prefix = len(target.get("prefixItems") or ())
        last = max(prefix, known.prefix)
        found: list[Reason] = []
        for index in range(last + 1):
            if index >= known.at_most("maxItems"):
                break
            place = target.child("prefixItems", index) if index < prefix else None
            if place is None and target.get("items") is not None:
                place = target.child("items")
            if place is not None:
                below = f"{field}[{index}]" if index < last else f"{field}[]"
                found += self.reasons(known.item(index), place, below)
        return found

    def _contains(self, known: Known, target: Place, field: str) -> list[Reason]:
        for place in known.places:
            as_often = all(place.get(word) == target.get(word) for word in ("minContains", "maxContains"))
            if (
                as_often
                and place.get("contains") is not None
                and self._same(place.child("contains"), target.child("contains"))
            ):
                return []
        if target.get("minContains") == 0 and target.get("maxContains") is None:
            return []
        return [_unclear(target, field, "contains")]


def _has_choices(target: Place) -> bool:
    return any(place.get(keyword) for place in conjunction(target) for keyword in ("anyOf", "oneOf"))


def _below(field: str, name: str) -> str:
    return f"{field}.{name}" if field else name


def _additive(reason: Reason) -> Reason:
    return Reason(reason.pointer, reason.field, reason.what, reason.known, reason.target, True)


def _unclear(target: Place, field: str, keyword: str, why: str = "") -> Reason:
    return Reason(
        (*target.pointer, keyword), field, f"`{keyword}` cannot be compared" + (f": {why}" if why else ""), "", ""
    )


def in_words(kinds: frozenset[str]) -> str:
    """number or null"""
    if kinds == ALL_KINDS:
        return "anything"
    names = sorted(kinds - {"integer"} if "fraction" in kinds else kinds)
    return " or ".join("number" if name == "fraction" else name for name in names) or "nothing"


_NUMBER, _STRING, _OBJECT, _ARRAY = TYPES["number"], TYPES["string"], TYPES["object"], TYPES["array"]
_KINDS = {
    **dict.fromkeys(("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf"), _NUMBER),
    **dict.fromkeys(("minLength", "maxLength", "pattern", "format"), _STRING),
    **dict.fromkeys(("minItems", "maxItems", "uniqueItems", "items", "prefixItems", "contains"), _ARRAY),
    **dict.fromkeys(("minProperties", "maxProperties", "required", "properties", "patternProperties"), _OBJECT),
    **dict.fromkeys(("additionalProperties", "propertyNames", "dependentRequired", "dependentSchemas"), _OBJECT),
    "unevaluatedProperties": _OBJECT,
    "unevaluatedItems": _ARRAY,
}

_Check = Callable[[Containment, Known, Place, str], list[Reason]]
_C = Containment
_CHECKS: dict[str, _Check] = {
    "$ref": _C._ref,
    "allOf": _C._all_of,
    "anyOf": _C._any_of,
    "oneOf": _C._one_of,
    "not": _C._not,
    "if": _C._if,
    "type": _C._type,
    "enum": _C._enum,
    "const": _C._enum,
    **dict.fromkeys(("minimum", "exclusiveMinimum"), _C._least),
    **dict.fromkeys(("maximum", "exclusiveMaximum"), _C._most),
    "multipleOf": _C._multiple,
    **dict.fromkeys(("minLength", "minItems", "minProperties", "maxLength", "maxItems", "maxProperties"), _C._sizes),
    **dict.fromkeys(("pattern", "format"), _C._text),
    "uniqueItems": _C._unique,
    "required": _C._required,
    "properties": _C._properties,
    "patternProperties": _C._patterns,
    "additionalProperties": _C._other_fields,
    "propertyNames": _C._names,
    "dependentRequired": _C._dependent,
    "dependentSchemas": _C._dependent_schemas,
    **dict.fromkeys(("items", "prefixItems"), _C._items),
    "contains": _C._contains,
    **dict.fromkeys(_UNCLEAR, _C._not_understood),
}
