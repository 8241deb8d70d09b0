"""What a check is: a function of the account that returns what it saw, and raises `Failed` or `Skipped` otherwise.

    @check("Alarms reach their topic", seconds=20, usd=0.001)
    def alarms_reach_their_topic(account: Account) -> str:
        ...
        return "4 of 4 alarms published"

A module `checks_<topic>.py` beside this one is found by its name. Checks run in the order in which they stand.
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
    """The account does not do what Stepwell relies on. The message says what was seen, and what to do."""


class Skipped(Exception):
    """The check does not apply to this environment. The message says why, and what would make it apply."""


@dataclass(frozen=True, slots=True)
class Check:
    topic: str
    title: str
    run: Callable[[Account], str]
    seconds: float  # about how long it takes
    usd: float  # at most what it costs
    emulated: bool  # whether the emulator of `make rehearsal` can pass it

    @property
    def name(self) -> str:
        """Name on the command line: `alarms.alarms_reach_their_topic`."""
        return f"{self.topic}.{self.run.__name__}"


_registered: list[Check] = []


def check(
    title: str, *, seconds: float = 2, usd: float = 0, emulated: bool = False
) -> Callable[[Callable[[Account], str]], Callable[[Account], str]]:
    """Register a check. `title`: what holds if it passes, as a sentence. `seconds`, `usd`: what to expect."""

    def register(run: Callable[[Account], str]) -> Callable[[Account], str]:
        topic = run.__module__.rpartition(f".{PREFIX}")[2]
        _registered.append(Check(topic, title, run, seconds, usd, emulated))
        return run

    return register


def all_checks() -> list[Check]:
    """Every check: `basics` first, the other topics by name, each topic's checks in the order of its file."""
    for module in pkgutil.iter_modules(real.__path__):
        if module.name.startswith(PREFIX):
            importlib.import_module(f"rehearsal.real.{module.name}")
    return sorted(_registered, key=lambda found: (found.topic != "basics", found.topic))
