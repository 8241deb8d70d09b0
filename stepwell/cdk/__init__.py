"""CDK constructs for your own stacks: durable queues, functions, roles, and references to a deployed environment.

They do not need the engine's sources, so they work where Stepwell is installed with pip.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwell.cdk.functions import Functions
    from stepwell.cdk.options import StepOptions
    from stepwell.cdk.push import PushPolicy, PushRole
    from stepwell.cdk.source import Source

__all__ = ["Functions", "PushPolicy", "PushRole", "Source", "StepOptions"]
_MODULES = {
    "Functions": "functions",
    "PushPolicy": "push",
    "PushRole": "push",
    "Source": "source",
    "StepOptions": "options",
}


def __getattr__(name: str) -> Any:
    """Imports a construct on first access, so that using one does not import the others."""
    if name not in _MODULES:
        raise AttributeError(name)
    return getattr(import_module(f"stepwell.cdk.{_MODULES[name]}"), name)
