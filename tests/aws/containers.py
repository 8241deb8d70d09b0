"""An image for container steps in tests."""

from __future__ import annotations

import shutil
from pathlib import Path

from stepwell.testing.ecs.containers import Containers
from tests.containers import BUSYBOX


class Images(Containers):
    """An image that contains only busybox, and these variables."""

    @property
    def busybox(self) -> str:
        return f"{self.registry.host}/busybox:1"

    def make_busybox(self, folder: Path) -> None:
        shutil.copy(BUSYBOX, folder / "busybox")
        dockerfile = 'FROM scratch\nCOPY busybox /bin/\nENV A=image B=image D=image\nENTRYPOINT ["/bin/busybox"]\n'
        self.make(self.busybox, folder, dockerfile)
