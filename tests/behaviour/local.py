"""The local platform for the behaviour suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stepwell.testing.local import LocalStepwell
from tests.behaviour.scripted import ScriptedHandlers
from tests.behaviour.words import Json, write_function


class LocalTestPlatform(LocalStepwell):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "db")
        self._folder = folder

    def _open(self) -> None:
        super()._open()
        runners = self.server._runners
        runners._handlers = ScriptedHandlers(runners._handlers)  # type: ignore[assignment]

    def deploy(self, definition: Json | str, files: dict[str, str | bytes] | None = None) -> int:  # type: ignore[override]
        return super().deploy(write_function(self._folder, definition, files))

    def push(self, definition: Json | str, files: dict[str, str | bytes] | None = None, **release: Any) -> Json:  # type: ignore[override]
        return super().push(write_function(self._folder, definition, files), **release)
