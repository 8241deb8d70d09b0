"""Explains why an event started nothing."""

from __future__ import annotations

from difflib import get_close_matches

from stepwell.core.routing.triggers import Catalog

_RESERVED = "stepwell/"


def why_nothing_started(name: str, keepers: list[str], catalog: Catalog) -> str | None:
    """The reason as one line; None if the event is not expected to start anything.

    The event has resumed no run. `keepers` are the paused functions for which the event is kept.
    """
    if keepers:
        return f"kept for {', '.join(keepers)}, which is paused; starts a run when it is resumed"
    if name.startswith(_RESERVED) or catalog.is_triggered_by(name):
        return None
    if catalog.is_awaited(name):
        return f"starts nothing: no trigger names {name}, and no open wait matches it"
    triggers = catalog.triggers
    if not triggers:
        return "starts nothing: no live function has an event trigger"
    near = get_close_matches(name, [trigger.rstrip("*") for trigger in triggers], 1, 0.6)
    listed = f"{', '.join(triggers[:5])}{', ...' * (len(triggers) > 5)}"
    hint = f"; did you mean {near[0]}?" if near else f"; triggers are {listed}"
    return f"starts nothing: no trigger names {name}{hint}"
