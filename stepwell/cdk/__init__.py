"""Constructs for stacks of your own: queues that lose nothing, and what refers to a deployed environment.

One rule: nothing here needs the engine's sources, so that all of it works where Stepwell is installed by pip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwell.cdk.functions import Functions

__all__ = ["Functions"]


def __getattr__(name: str) -> Any:
    """`Functions` when it is asked for: whoever wants but a queue loads nothing else."""
    if name != "Functions":
        raise AttributeError(name)
    from stepwell.cdk.functions import Functions

    return Functions
