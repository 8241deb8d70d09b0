"""`GET /healthz`: whether the server runs, and whether all definitions are in service.

No API key is needed. Without one, the response names broken definitions, but not the reasons and the folders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stepwell import __version__
from stepwell.api.views.models import BrokenDefinition, Health

_MAX_LISTED = 100


@dataclass(frozen=True, slots=True)
class Broken:
    """A definition that is not in service, or only in an older version. `name` is the folder and file name, or the
    function's id."""

    name: str
    message: str


def health(broken: Sequence[Broken], *, may_know_why: bool) -> Health:
    """The response of `/healthz`. `may_know_why`: include the reasons."""
    if not broken:
        return {"status": "ok", "version": __version__}
    definitions: list[BrokenDefinition] = [
        {"definition": broken.name, "message": broken.message} if may_know_why else {"definition": broken.name}
        for broken in broken[:_MAX_LISTED]
    ]
    return {"status": "degraded", "version": __version__, "definitions": definitions}
