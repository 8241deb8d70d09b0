"""The state of an emulated account, kept to begin with again: 2 ms instead of the 120 ms that making it takes.

One rule: what is kept and what is used share nothing that can change.
"""

from __future__ import annotations

import copy
import copyreg
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from moto.core.base_backend import BackendDict, BaseBackend
from moto.ssm.models import ParameterDict

_Key = tuple[str, str]  # account, region


class Snapshot:
    """Of all services that were used since moto was reset. It must not change meanwhile."""

    def __init__(self) -> None:
        self._services: list[BackendDict[Any]] = list(BackendDict._instances)
        self._kept = _copied(
            [{(a, r): backend for a, r, backend in service.iter_backends()} for service in self._services]
        )

    def restore(self) -> None:
        BackendDict.reset()
        for service, backends in zip(self._services, _copied(self._kept), strict=True):
            for (account, region), backend in backends.items():
                service[account][region] = backend


def _copied(state: list[dict[_Key, BaseBackend]]) -> list[dict[_Key, BaseBackend]]:
    """All in one, so that what services know of each other are copies too."""
    with _copyable():
        return copy.deepcopy(state)


@contextmanager
def _copyable() -> Iterator[None]:
    """What moto keeps and Python does not copy by itself."""
    before = dict(copyreg.dispatch_table)
    copyreg.pickle(threading.Condition, lambda _: (threading.Condition, ()))
    copyreg.pickle(ParameterDict, _parameters)
    try:
        yield
    finally:
        copyreg.dispatch_table.clear()
        copyreg.dispatch_table.update(before)


def _parameters(parameter_dict: ParameterDict) -> tuple[Any, ...]:
    return (
        ParameterDict,
        (parameter_dict.account_id, parameter_dict.region_name),
        vars(parameter_dict),
        None,
        iter(parameter_dict.items()),
    )
