"""Generates the JSON Schemas of function definitions, webhook rules and sources: `python schemas/generate.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stepwell.core.definition import definition
from stepwell.core.sources import definition as source_definition
from stepwell.core.webhooks import definition as webhook_definition

FOLDER = Path(__file__).parent


def texts() -> dict[str, str]:
    """The content of each file, by the file's name."""
    return {
        "function.schema.json": _text(definition.schema()),
        "source.schema.json": _text(source_definition.schema()),
        "webhook.schema.json": _text(webhook_definition.schema()),
    }


def _text(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name, text in texts().items():
        (FOLDER / name).write_text(text, "utf-8")
