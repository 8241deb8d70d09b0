"""Compares two versions of an event's schema: what does the new version break?

The terms are those of schema registries. Backward compatible: events of the old version are valid under the new one.
Forward compatible: events of the new version are valid under the old one. Full: both.

A change counts as breaking unless it is proven to be compatible.
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
    """A breaking change.

    `pointer` is a place in the schema that rejects the event: the new schema for a backward break, the old one for a
    forward break. `additive`: the change only concerns fields that the old version does not name. Strictly, this is
    breaking, because the old version allows any value for them or rejects them; in practice it rarely matters.
    """

    pointer: Pointer
    message: str
    additive: bool = False

    def as_json(self) -> dict[str, Any]:
        return {"pointer": json_pointer(self.pointer), "message": self.message, "additive": self.additive}


@dataclass(frozen=True, slots=True)
class Comparison:
    backward: list[Break]  # reasons why an event of the old version may be invalid under the new one
    forward: list[Break]  # reasons why an event of the new version may be invalid under the old one

    @property
    def level(self) -> Level:
        """The compatibility of the new version, by the strict definitions."""
        if not self.backward:
            return "backward" if self.forward else "full"
        return "none" if self.forward else "forward"

    @property
    def breaking(self) -> list[Break]:
        """The breaks that matter in practice: all except additive ones, each message once."""
        found = {found.message: found for found in (*self.forward, *self.backward) if not found.additive}
        return list(found.values())


def compare(old: Schema, new: Schema) -> Comparison:
    """Compares two versions of a schema; `refusals` must be empty for both. The work is limited for any schema."""
    if describes(old) != describes(new):
        old, new = event_schema(old), event_schema(new)
    old_root, new_root = Document(old).root, Document(new).root
    backward = Containment(target_is_newer=True).reasons(Constraints((old_root,)), new_root)
    forward = Containment(target_is_newer=False).reasons(Constraints((new_root,)), old_root)
    return Comparison(
        backward=[_break(reason, reason.known, reason.target) for reason in backward],
        forward=[_break(reason, reason.target, reason.known) for reason in forward],
    )


def _break(reason: Reason, was: str, now: str) -> Break:
    """A break with a message such as "`a.b` was string, is number now" or "`a.b`: maximum was 10, is 5 now"."""
    if not was:
        return Break(
            reason.pointer, f"`{reason.field}`: {reason.what}" if reason.field else reason.what, reason.additive
        )
    subject = reason.what
    if reason.field:
        subject = f"`{reason.field}`" if subject == "it" else f"`{reason.field}`: {subject}"
    return Break(reason.pointer, f"{subject} was {was}, is {now} now", reason.additive)
