"""Makes moto faster by caching what it computes for every request. `faster_boto` does the same for boto3.

Only constants are cached, and only unused results are left out, so the answers are the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import count
from typing import Any
from unittest.mock import patch

from moto.core import responses
from moto.core.serialize import AttributePicker, XFormedAttributePicker
from moto.core.utils import unix_time_millis
from moto.sqs import models as sqs

from stepwell.testing.account.faster_boto import faster_boto
from stepwell.testing.account.faster_dynamodb import faster_dynamodb

_PURE = (
    (responses, "camelcase_to_underscores"),
    (responses, "method_names_from_class"),
    (sqs, "camelcase_to_underscores"),
)
_on: ExitStack | None = None  # undoes the patches


@contextmanager
def faster_moto() -> Iterator[None]:
    """Makes moto and boto3 faster within the block. Inside another such block it changes nothing."""
    if _on is not None:
        yield
        return
    _turn_on()
    try:
        yield
    finally:
        _turn_off()


@contextmanager
def plain_moto() -> Iterator[None]:
    """Restores the unpatched moto and boto3 within the block, also inside `faster_moto`, to compare the two."""
    if _on is None:
        yield
        return
    _turn_off()
    try:
        yield
    finally:
        _turn_on()


def _turn_off() -> None:
    global _on
    assert _on is not None
    _on.close()
    _on = None


def _turn_on() -> None:
    global _on
    handles = count(1)
    with ExitStack() as stack:
        for module, name in _PURE:
            stack.enter_context(patch.object(module, name, cache(getattr(module, name))))
        for picker in (AttributePicker, XFormedAttributePicker):
            cached = _cached_keys(picker.get_possible_keys)
            stack.enter_context(patch.object(picker, "get_possible_keys", cached))
        stack.enter_context(patch.object(responses, "gen_amzn_requestid_long", _request_ids()))
        stack.enter_context(patch.object(sqs.SQSBackend, "is_message_valid_based_on_retention_period", _is_retained))
        stack.enter_context(patch.object(sqs, "generate_receipt_handle", lambda: f"{next(handles):0185}"))
        stack.enter_context(patch.object(sqs, "unix_time_millis", _now_ms))
        stack.enter_context(faster_boto())
        stack.enter_context(faster_dynamodb())
        _on = stack.pop_all()


def _cached_keys(possible_keys: Callable[[Any, Any], Iterable[str]]) -> Callable[[Any, Any], Iterable[str]]:
    """Caches the possible names of an attribute: they depend on classes and on AWS's model, not on the answer."""
    known: dict[Any, tuple[str, ...]] = {}

    def cached(self: Any, context: Any) -> Iterable[str]:
        of = (*self.alias_providers, type(context.obj), context.key, context.shape)
        if of not in known:
            known[of] = tuple(possible_keys(self, context))
        return known[of]

    return cached


def _request_ids() -> Callable[[dict[str, Any]], str]:
    """Counts request ids up, where moto draws 52 random letters."""
    numbers = count(1)

    def request_id(headers: dict[str, Any]) -> str:
        headers["x-amzn-requestid"] = text = f"{next(numbers):052}"
        return text

    return request_id


def _is_retained(backend: Any, queue_name: str, message: Any) -> bool:
    """Whether a message is within the retention. moto counts all messages of the queue to read this one setting."""
    retention_s: float = backend.get_queue(queue_name).message_retention_period
    return bool(retention_s + message.sent_timestamp / 1000 > time.time())


def _now_ms(at: Any = None) -> float:
    """The time in ms. moto converts the present time to a date and back, for each message of a queue."""
    return time.time() * 1000 if at is None else float(unix_time_millis(at))
