"""moto, without what it works out again for every request, and boto3 likewise (`faster_boto`).

One rule: only what cannot change is remembered, and only what nobody reads is left out, so answers are the same.
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
_on: ExitStack | None = None  # undoes what is patched


@contextmanager
def faster_moto() -> Iterator[None]:
    """moto and boto3 are faster within it. A second one within it changes nothing."""
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
    """moto and boto3 are as they come within it, also within `faster_moto`: to compare the two."""
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
            remembered = _remembered(picker.get_possible_keys)
            stack.enter_context(patch.object(picker, "get_possible_keys", remembered))
        stack.enter_context(patch.object(responses, "gen_amzn_requestid_long", _request_ids()))
        stack.enter_context(patch.object(sqs.SQSBackend, "is_message_valid_based_on_retention_period", _is_kept))
        stack.enter_context(patch.object(sqs, "generate_receipt_handle", lambda: f"{next(handles):0185}"))
        stack.enter_context(patch.object(sqs, "unix_time_millis", _now_ms))
        stack.enter_context(faster_boto())
        stack.enter_context(faster_dynamodb())
        _on = stack.pop_all()


def _remembered(possible_keys: Callable[[Any, Any], Iterable[str]]) -> Callable[[Any, Any], Iterable[str]]:
    """The names that an attribute may have depend on classes and on AWS's model, not on what is answered."""
    known: dict[Any, tuple[str, ...]] = {}

    def remembered(self: Any, context: Any) -> Iterable[str]:
        of = (*self.alias_providers, type(context.obj), context.key, context.shape)
        if of not in known:
            known[of] = tuple(possible_keys(self, context))
        return known[of]

    return remembered


def _request_ids() -> Callable[[dict[str, Any]], str]:
    """moto draws 52 letters by chance."""
    numbers = count(1)

    def request_id(headers: dict[str, Any]) -> str:
        headers["x-amzn-requestid"] = text = f"{next(numbers):052}"
        return text

    return request_id


def _is_kept(backend: Any, queue_name: str, message: Any) -> bool:
    """moto counts all messages of the queue, to read one of its settings."""
    kept_s: float = backend.get_queue(queue_name).message_retention_period
    return bool(kept_s + message.sent_timestamp / 1000 > time.time())


def _now_ms(at: Any = None) -> float:
    """moto makes a date of now, and a number of that, for each message of a queue that is looked at."""
    return time.time() * 1000 if at is None else float(unix_time_millis(at))
