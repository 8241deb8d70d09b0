"""moto and boto3, without what they work out again for every request.

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

from botocore.auth import SIGV4_TIMESTAMP, SigV4Auth
from botocore.compat import get_current_datetime
from botocore.regions import EndpointRulesetResolver
from moto.core import responses
from moto.core.serialize import AttributePicker, XFormedAttributePicker
from moto.core.utils import unix_time_millis
from moto.sqs import models as sqs

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
    boto: tuple[tuple[Any, str, Callable[[Any], Any]], ...] = (
        (SigV4Auth, "add_auth", _without_signature),
        (EndpointRulesetResolver, "construct_endpoint", _once_for_each_operation),
    )
    with ExitStack() as stack:
        for module, name in _PURE:
            stack.enter_context(patch.object(module, name, cache(getattr(module, name))))
        for picker in (AttributePicker, XFormedAttributePicker):
            remembered = _remembered(picker.get_possible_keys)
            stack.enter_context(patch.object(picker, "get_possible_keys", remembered))
        stack.enter_context(patch.object(responses, "gen_amzn_requestid_long", _request_ids()))
        for of, name, faster in boto:
            stack.enter_context(patch.object(of, name, faster(getattr(of, name))))
        stack.enter_context(patch.object(sqs.SQSBackend, "is_message_valid_based_on_retention_period", _is_kept))
        stack.enter_context(patch.object(sqs, "generate_receipt_handle", lambda: f"{next(handles):0185}"))
        stack.enter_context(patch.object(sqs, "unix_time_millis", _now_ms))
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


# --- boto3 -----------------------------------------------------------------------------------------------------------


def _once_for_each_operation(construct_endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Where a client's requests to DynamoDB go does not depend on what they ask for."""

    def constructed(resolver: EndpointRulesetResolver, operation_model: Any, **named: Any) -> Any:
        if operation_model.service_model.service_name != "dynamodb":
            return construct_endpoint(resolver, operation_model, **named)
        known = vars(resolver).setdefault("_known", {})
        if operation_model.name not in known:
            known[operation_model.name] = construct_endpoint(resolver, operation_model, **named)
        return known[operation_model.name]

    return constructed


def _without_signature(add_auth: Callable[..., None]) -> Callable[..., None]:
    """moto reads who signs, and checks no signature. Those of URLs and of S3 are made, by classes of their own."""

    def added(signer: SigV4Auth, request: Any) -> None:
        if type(signer) is not SigV4Auth or signer.credentials is None:
            add_auth(signer, request)
            return
        request.context["timestamp"] = get_current_datetime().strftime(SIGV4_TIMESTAMP)
        signer._modify_request_before_signing(request)
        parts = f"Credential={signer.scope(request)}, SignedHeaders=host, Signature={'0' * 64}"
        request.headers["Authorization"] = f"AWS4-HMAC-SHA256 {parts}"

    return added
