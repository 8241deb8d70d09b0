"""`GET /healthz`: whether the server is there, and whether all that it was given is in service.

One rule: everybody may ask, so a stranger learns which definitions are broken, but neither why nor where they lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stepwell import __version__
from stepwell.api.views.models import BrokenDefinition, Health

_MOST_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Broken:
    """What is not in service, or in an older version only: the file with its folder's name, or a function's id."""

    name: str
    message: str


def health(broken: Sequence[Broken], *, may_know_why: bool) -> Health:
    if not broken:
        return {"status": "ok", "version": __version__}
    definitions: list[BrokenDefinition] = [
        {"definition": broken.name, "message": broken.message} if may_know_why else {"definition": broken.name}
        for broken in broken[:_MOST_SHOWN]
    ]
    return {"status": "degraded", "version": __version__, "definitions": definitions}
