"""Whether every value of one schema is valid under another, and if not, why not.

The schemas are compared by their structure: types, values, bounds, sizes, fields, items, and alternatives. A change of
any other keyword (`not`, `if`, `contains`, `propertyNames`, ...) is not understood, and counts as a reason. A keyword
that did not change is no reason, whatever it says.

A circle of `$ref`s is contained if nothing on the way round speaks against it (coinduction, as for recursive types:
Amadio and Cardelli, Subtyping recursive types, 1993).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from stepwell.event_types.alternatives import alternatives, apart, by_kind, choices
from stepwell.event_types.constraints import ALL_KINDS, TYPES, Constraints, field_places, item_places, matches
from stepwell.event_types.limits import LIMITS, Check, Reason, below, refused_values
from stepwell.event_types.schema import Place, conjunction
from stepwell.event_types.schema_equality import SchemaTexts

_MOST_STEPS = 1_500
_MOST_COMPARED = 20_000  # pairs of alternatives
_DEEPEST = 50
_OBJECT, _ARRAY = TYPES["object"], TYPES["array"]
# Keywords that are not understood, with the words that say something together. None: all words of the schema do.
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
    """The comparison of two schemas, in one direction. `target_is_newer`: which of the two names the newer fields."""

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
        result = list(dict.fromkeys(self._reasons(known, target, field)))
        self._depth -= 1
        if result:  # then what was found to be contained on the way may have relied on this
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
        """What speaks against a value by each keyword of the target."""
        assert isinstance(target.schema, dict)
        found: list[Reason] = []
        checks = [self._checks[keyword] for keyword in target.schema if keyword in self._checks]
        for check in dict.fromkeys(check for kinds, check in checks if known.kinds & kinds):
            found += check(known, target, field)
        return found

    def _unknown(self, known: Constraints, target: Place, field: str) -> Iterator[Reason]:
        """By each keyword that is not understood: fine if nothing of it changed."""
        for keyword, (kinds, words) in _NOT_UNDERSTOOD.items():
            if target.get(keyword) is None or not known.kinds & kinds or _allows_all(target, keyword):
                continue
            if not self._is_unchanged(known, target, keyword, words):
                yield _unclear(target, field, keyword)

    def _is_unchanged(self, known: Constraints, target: Place, keyword: str, words: tuple[str, ...] | None) -> bool:
        """Whether one of the values' own schemas requires the same by these words."""
        places = [place for place in known.places if place.get(keyword) is not None]
        return any(self._texts.are_equal(place, target, words) for place in places)

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
        """Only one alternative must be possible: were there two, both may hold."""
        if self._is_unchanged(known, target, "oneOf", ("oneOf",)):
            return []
        tried = [self.reasons(known, choice, field) for choice in self._possible(known, target, "oneOf")]
        if len(tried) > 1 and not all(tried):
            return [_unclear(target, field, "oneOf", ": several alternatives may hold")]
        return _none_taken(target, field, "oneOf", tried) if all(tried) else []

    def _possible(self, known: Constraints, target: Place, keyword: str) -> list[Place]:
        """The alternatives that a value may satisfy."""
        every = choices(target, keyword)
        self._compared += len(every)
        return every if self._compared > _MOST_COMPARED else [choice for choice in every if not apart(known, choice)]

    # --- fields and items ---

    def _fields(self, known: Constraints, target: Place, field: str) -> Iterator[Reason]:
        """By `properties`, `patternProperties` and `additionalProperties`, which say together what a field may hold."""
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
        Reason((*target.pointer, keyword), field, "each of its alternatives", "allowed", "not taken by one of them")
    ]


def _allows_all(target: Place, keyword: str) -> bool:
    return keyword.startswith(("unevaluated", "propertyNames")) and target.get(keyword) in (True, {})


def _has_choices(target: Place) -> bool:
    return any(place.get(keyword) for place in conjunction(target) for keyword in ("anyOf", "oneOf"))


def _unclear(target: Place, field: str, keyword: str, why: str = "") -> Reason:
    return Reason((*target.pointer, keyword), field, f"`{keyword}` cannot be compared{why}", "", "")
