"""Writes `function.schema.json` from the model of a definition: `python schemas/generate.py`."""

from __future__ import annotations

import json
from pathlib import Path

from stepwell.core.definition import schema

FILE = Path(__file__).parent / "function.schema.json"


def text() -> str:
    """The content that the file must have."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), "utf-8")
