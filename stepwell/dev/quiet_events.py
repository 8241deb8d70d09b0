"""Why an event started nothing, for whoever waits for what it should have started."""

from __future__ import annotations

from difflib import get_close_matches

from stepwell.core.routing.triggers import Catalog

_RESERVED = "stepwell/"


def why_nothing_started(name: str, keepers: list[str], catalog: Catalog) -> str | None:
    """A line, or None if nobody expects it to start anything. `keepers`: paused functions that it is kept for."""
    if keepers:
        return f"kept for {', '.join(keepers)}: paused, and started with it once resumed"
    if name.startswith(_RESERVED) or catalog.is_triggered_by(name):
        return None
    if catalog.is_awaited(name):
        return f"starts nothing: only waits of runs ask for {name}"
    triggers = catalog.triggers
    if not triggers:
        return "starts nothing: no function that is live has an event as its trigger"
    near = get_close_matches(name, [trigger.rstrip("*") for trigger in triggers], 1, 0.6)
    hint = f"; is it {near[0]}?" if near else f"; there are {', '.join(triggers[:5])}{', ...' * (len(triggers) > 5)}"
    return f"starts nothing: no trigger is called {name}{hint}"
