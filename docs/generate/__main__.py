"""Writes the pages of docs/ that follow from the code: `python docs/generate`, or `make docs`."""

from __future__ import annotations

from pages import ROOT, pages


def main() -> None:
    for name, text in pages().items():
        (ROOT / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
