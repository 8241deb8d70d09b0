"""Settings for all tests."""

from __future__ import annotations

import gc
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import commands, faster_clients

# No deadlines in hypothesis: how long an example takes depends mostly on the machine.
settings.register_profile("stepwell", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("stepwell")

# Tests start a thousand Python processes, which share compiled bytecode, whatever the shell's settings are.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Collected tests, a million objects, live until the end, so the garbage collector need not check them.
gc.disable()

faster_clients.turn_on()

# CDK starts Node when it is imported.
HAS_NODE = shutil.which("node") is not None
_USES_CDK = re.compile(
    r"^(import|from) (aws_cdk|cdk_nag|infra\.(?!settings)|stepwell\.cdk|tests\.aws\.stack_roles)", re.MULTILINE
)


def pytest_collection_finish() -> None:
    """Tests on moto make much garbage, little of it in cycles: the collector, called after each 700 new objects, took a
    tenth of their time."""
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)
    gc.enable()


def pytest_unconfigure() -> None:
    commands.stop()


class _NeedsNode(pytest.Module):
    def collect(self) -> Any:
        pytest.skip("node is not installed, and CDK needs it", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Skips modules that cannot be imported without Node, with the reason, if Node is missing."""
    if HAS_NODE or not _USES_CDK.search(module_path.read_text("utf-8")):
        return None
    found: pytest.Module = _NeedsNode.from_parent(parent, path=module_path)
    return found
