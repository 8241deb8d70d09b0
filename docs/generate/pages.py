"""The generated pages, each under its place in docs/."""

from __future__ import annotations

from pathlib import Path

import cli_page
import definition_page
import error_page
import event_page
import http_page
import limits_page
import serve_page
import state_machine

ROOT = Path(__file__).parents[1]


def pages() -> dict[str, str]:
    """The text of each generated page, by its path below docs/."""
    return {
        "internals/state-machine.md": state_machine.page(),
        "reference/cli.md": cli_page.page(),
        "reference/definition.md": definition_page.page(),
        "reference/engine-events.md": event_page.page(),
        "reference/error-kinds.md": error_page.page(),
        "reference/http-api.md": http_page.page(),
        "reference/limits.md": limits_page.page(),
        "reference/serve.md": serve_page.page(),
    }
