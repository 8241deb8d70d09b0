"""moto, without what it works out again for every request.

One rule: only what cannot change is remembered, so answers are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

from moto.core import responses
from moto.core.serialize import AttributePicker, XFormedAttributePicker
from moto.sqs import models as sqs

_PURE = (
    (responses, "camelcase_to_underscores"),
    (responses, "method_names_from_class"),
    (sqs, "camelcase_to_underscores"),
)


@contextmanager
def faster_moto() -> Iterator[None]:
    with ExitStack() as stack:
        for module, name in _PURE:
            stack.enter_context(patch.object(module, name, cache(getattr(module, name))))
        for picker in (AttributePicker, XFormedAttributePicker):
            remembered = _remembered(picker.get_possible_keys)
            stack.enter_context(patch.object(picker, "get_possible_keys", remembered))
        yield


def _remembered(possible_keys: Callable[[Any, Any], Iterable[str]]) -> Callable[[Any, Any], Iterable[str]]:
    """The names that an attribute may have depend on classes and on AWS's model, not on what is answered."""
    known: dict[Any, tuple[str, ...]] = {}

    def remembered(self: Any, context: Any) -> Iterable[str]:
        of = (*self.alias_providers, type(context.obj), context.key, context.shape)
        if of not in known:
            known[of] = tuple(possible_keys(self, context))
        return known[of]

    return remembered
