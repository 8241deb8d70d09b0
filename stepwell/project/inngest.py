"""Files named inngest.json: definitions of Inngest's first command line, or settings of its dev server.

A definition means here what it meant there. A step without a runtime, whose folder has a Dockerfile, is a container. In
files with Stepwell's own names, a step without a runtime is a lambda step.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from stepwell.project.code import CodeError, resolve
from stepwell.project.convention import dockerfile

NAME = "inngest.json"
NOT_A_FUNCTION = "these are settings of Inngest's dev server, not a function"
_LARGEST = 64 * 1024
_OF_DEFINITIONS = frozenset({"id", "name", "triggers", "steps"})
_SETTINGS = frozenset({
    "sdk-url", "url", "urls", "no-discovery", "no-poll", "poll-interval", "retry-interval", "tick", "host", "port",
    "connect-gateway-port", "connect-gateway-host", "connect-executor-host", "connect-executor-port", "event-key",
    "signing-key", "queue-workers", "in-memory", "persist", "sqlite-dir", "postgres-uri", "redis-uri", "log-level",
    "json", "verbose", "config", "dir", "no-ui",
})  # fmt: skip


def is_settings(file: Path) -> bool:
    """Whether a file contains settings of Inngest's dev server, and not a definition."""
    if file.name != NAME:
        return False
    try:
        if os.stat(file).st_size > _LARGEST:  # noqa: PTH116
            return False
        data = json.loads(file.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return False  # loading the file reports the error
    return isinstance(data, dict) and not _OF_DEFINITIONS & data.keys() and any(map(_is_setting, data))


def _is_setting(name: str) -> bool:
    return name.lower().replace("_", "-") in _SETTINGS


def with_containers(data: Any, folder: Path) -> Any:
    """The data of a definition, with the runtime docker for each step that has none and has a Dockerfile."""
    if not isinstance(data, dict):
        return data
    steps = {"step-1": {"path": "file://."}} if data.get("steps") in (None, {}) else data["steps"]
    if not isinstance(steps, dict):
        return data
    docker = {key for key, step in steps.items() if isinstance(step, dict) and _is_container(step, folder)}
    if not docker:
        return data
    runtime = {"type": "docker"}
    return {
        **data,
        "steps": {key: {**step, "runtime": runtime} if key in docker else step for key, step in steps.items()},
    }


def _is_container(step: dict[str, Any], folder: Path) -> bool:
    path = step.get("path")
    if step.get("runtime") is not None or not isinstance(path, str) or not path.startswith("file://"):
        return False
    try:
        place = resolve(folder, path)
        return place.is_dir() and bool(dockerfile(place))
    except (CodeError, OSError):
        return False
