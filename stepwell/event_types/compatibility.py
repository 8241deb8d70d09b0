"""What a new version of an event's schema breaks.

The words are those of schema registries. Backward compatible: events of the old version are valid under the new one.
Forward compatible: events of the new version are valid under the old one. Full: both.

One rule: a change that is not proven to be harmless is a breaking one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from stepwell.core.definition.problems import Pointer
from stepwell.event_types.constraints import Constraints
from stepwell.event_types.containment import Containment
from stepwell.event_types.described import describes, event_schema
from stepwell.event_types.limits import Reason
from stepwell.event_types.schema import Document, Schema, json_pointer

Level = Literal["full", "backward", "forward", "none"]


@dataclass(frozen=True, slots=True)
class Break:
    """A breaking change. `pointer` is the place in the schema that refuses: the new one of a backward break, the old
    one of a forward break. `additive`: it is about nothing but fields that only the new version names. In strict terms
    the old version let them hold anything, or refused them, and so they break; few people mind."""

    pointer: Pointer
    message: str
    additive: bool = False

    def as_json(self) -> dict[str, Any]:
        return {"pointer": json_pointer(self.pointer), "message": self.message, "additive": self.additive}


@dataclass(frozen=True, slots=True)
class Comparison:
    backward: list[Break]  # why an event of the old version may be invalid under the new one
    forward: list[Break]  # why an event of the new version may be invalid under the old one

    @property
    def level(self) -> Level:
        """What the new version is, by the strict definitions."""
        if not self.backward:
            return "backward" if self.forward else "full"
        return "none" if self.forward else "forward"

    @property
    def breaking(self) -> list[Break]:
        """The breaks that people mind: all but the additive ones, each message once."""
        found = {found.message: found for found in (*self.forward, *self.backward) if not found.additive}
        return list(found.values())


def compare(old: Schema, new: Schema) -> Comparison:
    """Compare two versions of a schema, both without `refusals`. Pure; bounded work also for hostile schemas."""
    if describes(old) != describes(new):
        old, new = event_schema(old), event_schema(new)
    one, other = Document(old).root, Document(new).root
    backward = Containment(target_is_newer=True).reasons(Constraints((one,)), other)
    forward = Containment(target_is_newer=False).reasons(Constraints((other,)), one)
    return Comparison(
        backward=[_break(reason, reason.known, reason.target) for reason in backward],
        forward=[_break(reason, reason.target, reason.known) for reason in forward],
    )


def _break(reason: Reason, was: str, now: str) -> Break:
    """`a.b` was string, is number now; or `a.b`: its maximum was 10, is 5 now."""
    if not was:
        return Break(
            reason.pointer, f"`{reason.field}`: {reason.what}" if reason.field else reason.what, reason.additive
        )
    subject = reason.what
    if reason.field:
        subject = f"`{reason.field}`" if subject == "it" else f"`{reason.field}`: {subject}"
    return Break(reason.pointer, f"{subject} was {was}, is {now} now", reason.additive)
