"""Defines and finds checks. A check is a function of the account. It returns a text about what it saw, or raises
`Failed` or `Skipped`.

    @check("Alarms reach their topic", seconds=20, usd=0.001)
    def alarms_reach_their_topic(account: Account) -> str:
        ...
        return "4 of 4 alarms published"

Modules `checks_<topic>.py` beside this one are found by name. Checks run in the order in the module.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rehearsal import real

if TYPE_CHECKING:
    from rehearsal.real.account import Account

PREFIX = "checks_"


class Failed(Exception):
    """AWS or the environment does not behave as Stepwell expects. The message has the reason and the fix."""


class Skipped(Exception):
    """The check does not apply to this environment. The message has the reason, and a way to make it apply."""


@dataclass(frozen=True, slots=True)
class Check:
    topic: str
    title: str
    run: Callable[[Account], str]
    seconds: float  # the approximate duration
    usd: float  # the maximum cost
    emulated: bool  # whether the emulator of `make rehearsal` can pass it

    @property
    def name(self) -> str:
        """The name on the command line: `alarms.alarms_reach_their_topic`."""
        return f"{self.topic}.{self.run.__name__}"


_registered: list[Check] = []


def check(
    title: str, *, seconds: float = 2, usd: float = 0, emulated: bool = False
) -> Callable[[Callable[[Account], str]], Callable[[Account], str]]:
    """Registers a check. `title`: a sentence that is true if it passes. `seconds`, `usd`: expected time and cost."""

    def register(run: Callable[[Account], str]) -> Callable[[Account], str]:
        topic = run.__module__.rpartition(f".{PREFIX}")[2]
        _registered.append(Check(topic, title, run, seconds, usd, emulated))
        return run

    return register


def all_checks() -> list[Check]:
    """All checks: the topic `basics` first, other topics by name, and checks in the order of their module."""
    for module in pkgutil.iter_modules(real.__path__):
        if module.name.startswith(PREFIX):
            importlib.import_module(f"rehearsal.real.{module.name}")
    return sorted(_registered, key=lambda found: (found.topic != "basics", found.topic))
