"""moto and boto3, without what they work out again for every request.

One rule: only what cannot change is remembered, and only what nobody reads is left out, so answers are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import count
from typing import Any
from unittest.mock import patch

from botocore.auth import SIGV4_TIMESTAMP, SigV4Auth
from botocore.compat import get_current_datetime
from moto.core import responses
from moto.core.serialize import AttributePicker, XFormedAttributePicker
from moto.sqs import models as sqs

from stepwell.testing.faster_dynamodb import faster_dynamodb

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
        stack.enter_context(patch.object(responses, "gen_amzn_requestid_long", _request_ids()))
        stack.enter_context(patch.object(SigV4Auth, "add_auth", _without_signature(SigV4Auth.add_auth)))
        stack.enter_context(faster_dynamodb())
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


def _request_ids() -> Callable[[dict[str, Any]], str]:
    """moto draws 52 letters by chance."""
    numbers = count(1)

    def request_id(headers: dict[str, Any]) -> str:
        headers["x-amzn-requestid"] = text = f"{next(numbers):052}"
        return text

    return request_id


def _without_signature(add_auth: Callable[[SigV4Auth, Any], None]) -> Callable[[SigV4Auth, Any], None]:
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
