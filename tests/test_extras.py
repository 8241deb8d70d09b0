"""Which optional libraries are installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from stepwell.extras import is_installed


@pytest.mark.parametrize("module", ["orjson", "importlib.util", "tests.test_extras"])
def test_a_module_that_can_be_imported_is_installed(module: str) -> None:
    assert is_installed(module)


@pytest.mark.parametrize("module", ["no_such_module", "no_such_package.module", "orjson.no_such_module"])
def test_a_module_that_cannot_be_imported_is_not_installed(module: str) -> None:
    assert not is_installed(module)


@pytest.mark.parametrize("module", ["kombu", "celery", "redis", "wasmtime", "confluent_kafka", "google.cloud.pubsub"])
def test_a_library_is_installed_before_and_after_its_import(module: str) -> None:
    pytest.importorskip(module)
    code = f"from stepwell.extras import is_installed as i; b = i({module!r}); import {module}; print(b, i({module!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True True\n"


def test_threads_that_load_a_library_at_once_all_get_the_whole_of_it() -> None:
    """kombu replaces itself while it is imported."""
    pytest.importorskip("kombu")
    code = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from stepwell.extras import load
together = Barrier(8)
def use(_):
    together.wait()
    load("kombu")
    from kombu import Connection, Producer
    return Producer.__name__
print(set(ThreadPoolExecutor(8).map(use, range(8))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "{'Producer'}\n"
