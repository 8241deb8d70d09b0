"""What holds for all tests."""

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

# How long an example takes says more about the machine than about us.
settings.register_profile("stepwell", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("stepwell")

# Tests start a thousand Python processes: what one has compiled, others read, whatever this shell says of bytecode.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# What is collected, a million objects, stays to the end: the garbage collector does not look through it.
gc.disable()

faster_clients.turn_on()

# CDK starts Node as soon as it is imported.
HAS_NODE = shutil.which("node") is not None
_USES_CDK = re.compile(
    r"^(import|from) (aws_cdk|cdk_nag|infra\.(?!settings)|stepwell\.cdk|tests\.aws\.stack_roles)", re.MULTILINE
)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    commands.stop()


class _NeedsNode(pytest.Module):
    def collect(self) -> Any:
        pytest.skip("node is not installed, and CDK needs it", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Modules that cannot be imported without Node are skipped, with the reason, where there is none."""
    if HAS_NODE or not _USES_CDK.search(module_path.read_text("utf-8")):
        return None
    found: pytest.Module = _NeedsNode.from_parent(parent, path=module_path)
    return found
