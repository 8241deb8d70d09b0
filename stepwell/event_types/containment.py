"""Decides whether every value of one schema is valid under another, and gives the reasons if not.

The structure of the schemas is compared: types, values, bounds, sizes, fields, items and alternatives. A change of any
other keyword (`not`, `if`, `contains`, `propertyNames`, ...) is not understood and counts as a reason. A keyword that
did not change is never a reason.

Recursive schemas are compared by coinduction, as recursive types are: a cycle of `$ref`s is contained if no reason is
found on the way around (Amadio and Cardelli, Subtyping recursive types, 1993).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from stepwell.event_types.alternatives import alternatives, are_disjoint, by_kind, choices
from stepwell.event_types.constraints import ALL_KINDS, TYPES, Constraints, field_places, item_places, matches
from stepwell.event_types.limits import LIMITS, Check, Reason, below, refused_values
from stepwell.event_types.schema import Place, conjunction
from stepwell.event_types.schema_equality import SchemaTexts

_MAX_STEPS = 1_500
_MAX_COMPARED = 20_000  # pairs of alternatives
_MAX_DEPTH = 50
_OBJECT, _ARRAY = TYPES["object"], TYPES["array"]
# Keywords that are not understood, with the keywords that belong together. None: all keywords of the schema.
_NOT_UNDERSTOOD: dict[str, tuple[frozenset[str], tuple[str, ...] | None]] = {
    "not": (ALL_KINDS, ("not",)),
    "if": (ALL_KINDS, ("if", "then", "else")),
    "contains": (_ARRAY, ("contains", "minContains", "maxContains")),
    "propertyNames": (_OBJECT, ("propertyNames",)),
    "dependentSchemas": (_OBJECT, ("dependentSchemas",)),
    "unevaluatedProperties": (_OBJECT, None),
    "unevaluatedItems": (_ARRAY, None),
}


class Containment:
    """Compares two schemas in one direction. `target_is_newer`: the target is the newer version of the schema."""

    def __init__(self, target_is_newer: bool) -> None:
        self._newer = target_is_newer
        self._found: dict[tuple[Constraints, Place], list[Reason]] = {}
        self._texts = SchemaTexts()
        self._steps = self._depth = self._compared = 0
        self._checks: dict[str, tuple[frozenset[str], Check]] = {
            **LIMITS,
            "$ref": (ALL_KINDS, self._ref),
            "allOf": (ALL_KINDS, self._all_of),
            "anyOf": (ALL_KINDS, self._any_of),
            "oneOf": (ALL_KINDS, self._one_of),
            **dict.fromkeys(("properties", "patternProperties", "additionalProperties"), (_OBJECT, self._fields)),
            **dict.fromkeys(("items", "prefixItems"), (_ARRAY, self._items)),
            **{keyword: (kinds, self._unknown) for keyword, (kinds, _) in _NOT_UNDERSTOOD.items()},
        }

    def reasons(self, known: Constraints, target: Place, field: str = "") -> list[Reason]:
        """The reasons why a value described by `known` may be invalid under `target`; empty if it is always valid."""
        key = (known, target)
        if key in self._found:
            return self._found[key]
        self._steps += 1 + len(known.places) // 10  # each step reads all known places again
        if self._steps > _MAX_STEPS or self._depth > _MAX_DEPTH:
            return [Reason(target.pointer, field, "the schemas are too large to be compared", "", "")]
        self._found[key] = []  # assumed while a cycle is followed
        before = len(self._found)
        self._depth += 1
        result = list(dict.fromkeys(self._reasons(known, target, field)))
        self._depth -= 1
        if result:  # results found meanwhile may rely on the assumption, which was wrong
            for other in list(self._found)[before:]:
                if not self._found[other]:
                    del self._found[other]
        self._found[key] = result
        return result

    def _reasons(self, known: Constraints, target: Place, field: str) -> list[Reason]:
        if target.schema in (True, {}) or known.is_empty:
            return []
        if any(self._texts.are_equal(place, target) for place in known.places):
            return []
        if target.schema is False:
            return [Reason(target.pointer, field, "it", "allowed", "refused")]
        if known.values is not None and not any(place.get("format") for place in conjunction(target)):
            return refused_values(known.values, target, field)
        branches = alternatives(known)
        if branches and _has_choices(target):
            return self._each(branches, target, field)
        found = self._keywords(known, target, field)
        if found and branches:
            return self._each(branches, target, field)
        if found and _has_choices(target) and (kinds := by_kind(known)):
            return found if self._each(kinds, target, field) else []
        return found

    def _each(self, branches: Iterable[Constraints], target: Place, field: str) -> list[Reason]:
        return [reason for branch in branches for reason in self.reasons(branch, target, field)]

    def _keywords(self, known: Constraints, target: Place, field: str) -> list[Reason]:
        """The reasons from each keyword of the target."""
        assert isinstance(target.schema, dict)
        found: list[Reason] = []
        checks = [self._checks[keyword] for keyword in target.schema if keyword in self._checks]
        for check in dict.fromkeys(check for kinds, check in checks if known.kinds & kinds):
            found += check(known, target, field)
        return found

    def _unknown(self, known: Constraints, target: Place, field: str) -> Iterator[Reason]:
        """The reasons from keywords that are not understood: each one that has changed."""
        for keyword, (kinds, keywords) in _NOT_UNDERSTOOD.items():
            if target.get(keyword) is None or not known.kinds & kinds or _allows_all(target, keyword):
                continue
            if not self._is_unchanged(known, target, keyword, keywords):
                yield _unclear(target, field, keyword)

    def _is_unchanged(self, known: Constraints, target: Place, keyword: str, keywords: tuple[str, ...] | None) -> bool:
        """Whether one of the known schemas has the same values of `keywords`."""
        places = [place for place in known.places if place.get(keyword) is not None]
        return any(self._texts.are_equal(place, target, keywords) for place in places)

    # --- schemas in schemas ---

    def _ref(self, known: Constraints, target: Place, field: str) -> list[Reason]:
        to = target.document.target(target.get("$ref"))
        return self.reasons(known, to, field) if to is not None else [_unclear(target, field, "$ref")]

    def _all_of(self, known: Constraints, target: Place, field: str) -> list[Reason]:
        return [reason for part in choices(target, "allOf") for reason in self.reasons(known, part, field)]

    def _any_of(self, known: Constraints, target: Place, field: str) -> list[Reason]:
        tried = [self.reasons(known, choice, field) for choice in self._possible(known, target, "anyOf")]
        return _none_taken(target, field, "anyOf", tried) if all(tried) else []

    def _one_of(self, known: Constraints, target: Place, field: str) -> list[Reason]:
        """Exactly one alternative must be possible; with two, both may be valid at once."""
        if self._is_unchanged(known, target, "oneOf", ("oneOf",)):
            return []
        tried = [self.reasons(known, choice, field) for choice in self._possible(known, target, "oneOf")]
        if len(tried) > 1 and not all(tried):
            return [_unclear(target, field, "oneOf", ": several alternatives may be valid at once")]
        return _none_taken(target, field, "oneOf", tried) if all(tried) else []

    def _possible(self, known: Constraints, target: Place, keyword: str) -> list[Place]:
        """The alternatives under which a value may be valid."""
        every = choices(target, keyword)
        self._compared += len(every)
        if self._compared > _MAX_COMPARED:
            return every
        return [choice for choice in every if not are_disjoint(known, choice)]

    # --- fields and items ---

    def _fields(self, known: Constraints, target: Place, field: str) -> Iterator[Reason]:
        """The reasons from `properties`, `patternProperties` and `additionalProperties`, which depend on each other."""
        named, patterns = target.get("properties") or {}, target.get("patternProperties") or {}
        older_names, older_patterns = (known.fields, known.patterns) if self._newer else (named, patterns)
        for name in dict.fromkeys([*named, *known.fields]):
            is_added = name not in older_names and not any(matches(pattern, name) for pattern in older_patterns)
            for place in field_places(target, name):
                for reason in self.reasons(known.field(name), place, below(field, name)):
                    yield replace(reason, additive=reason.additive or is_added)
        others = target.child("additionalProperties") if target.get("additionalProperties") is not None else None
        for pattern in dict.fromkeys([*patterns, *known.patterns]):
            matching = target.child("patternProperties", pattern) if pattern in patterns else others
            if matching is not None:
                yield from self.reasons(known.matching_fields(pattern), matching, below(field, f"/{pattern}/"))
        if others is not None:
            for reason in self.reasons(known.other_fields(patterns), others, below(field, "*")):
                yield replace(reason, additive=reason.additive or not self._newer)

    def _items(self, known: Constraints, target: Place, field: str) -> Iterator[Reason]:
        last = max(len(target.get("prefixItems") or ()), known.prefix)
        for index in range(last + 1):
            if index < known.at_most("maxItems"):
                for place in item_places(target, index):
                    item = f"{field}[{index}]" if index < last else f"{field}[]"
                    yield from self.reasons(known.item(index), place, item)


def _none_taken(target: Place, field: str, keyword: str, tried: list[list[Reason]]) -> list[Reason]:
    if len(tried) == 1:
        return tried[0]
    return [
        Reason((*target.pointer, keyword), field, "every alternative", "allowed", "not accepted by any alternative")
    ]


def _allows_all(target: Place, keyword: str) -> bool:
    return keyword.startswith(("unevaluated", "propertyNames")) and target.get(keyword) in (True, {})


def _has_choices(target: Place) -> bool:
    return any(place.get(keyword) for place in conjunction(target) for keyword in ("anyOf", "oneOf"))


def _unclear(target: Place, field: str, keyword: str, details: str = "") -> Reason:
    return Reason((*target.pointer, keyword), field, f"`{keyword}` cannot be compared{details}", "", "")
