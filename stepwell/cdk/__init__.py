"""Constructs for stacks of your own: queues that lose nothing, and what refers to a deployed environment.

One rule: nothing here needs the engine's sources, so that all of it works where Stepwell is installed by pip.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwell.cdk.functions import Functions
    from stepwell.cdk.options import StepOptions
    from stepwell.cdk.push import PushPolicy, PushRole

__all__ = ["Functions", "PushPolicy", "PushRole", "StepOptions"]
_MODULES = {"Functions": "functions", "PushPolicy": "push", "PushRole": "push", "StepOptions": "options"}


def __getattr__(name: str) -> Any:
    """A construct, when it is asked for: whoever wants a queue loads nothing else."""
    if name not in _MODULES:
        raise AttributeError(name)
    return getattr(import_module(f"stepwell.cdk.{_MODULES[name]}"), name)
