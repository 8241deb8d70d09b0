"""Makes boto3 faster in tests: requests are not signed, and the parts that are the same in each request are made once.

Parameters are still validated and serialized, answers parsed, and errors retried. All events that let handlers see,
refuse or count requests are emitted, except `request-created`, which only boto3 uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from botocore import endpoint as endpoints
from botocore.auth import SIGV4_TIMESTAMP, SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, HeadersDict
from botocore.compat import get_current_datetime
from botocore.endpoint import Endpoint
from botocore.regions import EndpointRulesetResolver
from botocore.useragent import UserAgentString

_AS_SIGNED = ("Authorization", "X-Amz-Security-Token")  # moto reads the account from them


@contextmanager
def faster_boto() -> Iterator[None]:
    ids = count(1)
    with ExitStack() as stack:
        for of, name, faster in (
            (SigV4Auth, "add_auth", _without_signature),
            (EndpointRulesetResolver, "construct_endpoint", _once_for_each_operation),
            (Endpoint, "create_request", _with_first_signature),
        ):
            stack.enter_context(patch.object(of, name, faster(getattr(of, name))))
        stack.enter_context(patch.object(UserAgentString, "to_string", lambda agent: "Boto3 in tests"))
        stack.enter_context(patch.object(endpoints, "uuid", SimpleNamespace(uuid4=lambda: next(ids))))
        yield


def _with_first_signature(create_request: Callable[..., Any]) -> Callable[..., Any]:
    """Signs only the first request of a client, and copies the signature to the others.

    Applies to requests with a JSON body, which differ only in the body and the target.
    """

    def created(endpoint: Endpoint, params: dict[str, Any], operation_model: Any = None) -> Any:
        body = params["body"]
        if operation_model is None or "X-Amz-Target" not in params["headers"] or not isinstance(body, bytes):
            return create_request(endpoint, params, operation_model)
        known: dict[str, Any] | None = vars(endpoint).get("_signed")
        if known is None:
            request = create_request(endpoint, params, operation_model)
            vars(endpoint)["_signed"] = {name: request.headers[name] for name in _AS_SIGNED if name in request.headers}
            return request
        headers = HeadersDict({**params["headers"], **known, "Content-Length": str(len(body))})
        context = params.get("context")
        return AWSPreparedRequest(params["method"], params["url"], headers, body, stream_output=False, context=context)

    return created


def _once_for_each_operation(construct_endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Computes a DynamoDB client's endpoint once per operation: it does not depend on the parameters."""

    def constructed(resolver: EndpointRulesetResolver, operation_model: Any, **named: Any) -> Any:
        if operation_model.service_model.service_name != "dynamodb":
            return construct_endpoint(resolver, operation_model, **named)
        known = vars(resolver).setdefault("_known", {})
        if operation_model.name not in known:
            known[operation_model.name] = construct_endpoint(resolver, operation_model, **named)
        return known[operation_model.name]

    return constructed


def _without_signature(add_auth: Callable[..., None]) -> Callable[..., None]:
    """Replaces signatures by zeros: moto reads the credential, and checks no signature.

    Signatures of URLs and of S3 have classes of their own, and stay.
    """

    def added(signer: SigV4Auth, request: Any) -> None:
        if type(signer) is not SigV4Auth or signer.credentials is None:
            add_auth(signer, request)
            return
        request.context["timestamp"] = get_current_datetime().strftime(SIGV4_TIMESTAMP)
        signer._modify_request_before_signing(request)
        parts = f"Credential={signer.scope(request)}, SignedHeaders=host, Signature={'0' * 64}"
        request.headers["Authorization"] = f"AWS4-HMAC-SHA256 {parts}"

    return added
