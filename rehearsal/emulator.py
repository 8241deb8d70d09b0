"""ministack with what Stepwell needs besides: success destinations of asynchronous invocations (it delivers only those
of failures), and custom runtimes whose bootstrap is in a layer. Run by ministack's own Python.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
import uuid
import zipfile
from typing import Any

from ministack import app
from ministack.services import lambda_svc, sqs

Json = dict[str, Any]


def invoke(func: Json, event: Json) -> None:
    """An asynchronous invocation without retries, as Stepwell asks for, and its record as Lambda shapes it."""
    config = func.get("config") or func
    invocation = func.get("event_invoke_config") or (func.get("event_invoke_configs") or {}).get("$LATEST") or {}
    ends = invocation.get("DestinationConfig") or {}

    def run() -> None:
        account, region = lambda_svc._account_region_from_function_config(config)
        lambda_svc._request_account_id.set(account)
        lambda_svc._request_region.set(region)
        result = lambda_svc._execute_function(_with_layers(func, config), event)
        failed = bool(result.get("error"))
        arn = (ends.get("OnFailure" if failed else "OnSuccess") or {}).get("Destination")
        if arn:
            _send(arn, _record(config["FunctionArn"], event, result, failed))

    threading.Thread(target=run, daemon=True).start()


_whole: dict[str, bytes] = {}


def _with_layers(func: Json, config: Json) -> Json:
    """A function whose code has the files of its layers too, if it brings its own runtime."""
    if not config.get("Runtime", "").startswith("provided") or not config.get("Layers"):
        return func
    name = f"{config['FunctionArn']} {config['CodeSha256']}"
    if name not in _whole:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as whole:
            for part in (func["code_zip"], *map(lambda_svc._resolve_layer_zip, config["Layers"])):
                with zipfile.ZipFile(io.BytesIO(part)) as archive:
                    for entry in archive.infolist():
                        whole.writestr(entry, archive.read(entry))
        _whole[name] = content.getvalue()
    return {**func, "code_zip": _whole[name]}


def _record(arn: str, event: Json, result: Json, failed: bool) -> Json:
    context: Json = {"statusCode": 200, "executedVersion": "$LATEST"}
    if failed:
        context["functionError"] = result.get("function_error") or "Unhandled"
    return {
        "version": "1.0",
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()),
        "requestContext": {
            "requestId": result.get("request_id") or str(uuid.uuid4()),
            "functionArn": f"{arn}:$LATEST",
            "condition": "RetriesExhausted" if failed else "Success",
            "approximateInvokeCount": 1,
        },
        "requestPayload": event,
        "responseContext": context,
        "responsePayload": result.get("body"),
    }


def _send(arn: str, record: Json) -> None:
    body = json.dumps(record)
    now = time.time()
    queue = sqs._queue_by_arn(arn)
    queue["messages"].append(
        {
            "id": str(uuid.uuid4()),
            "body": body,
            "md5_body": hashlib.md5(body.encode(), usedforsecurity=False).hexdigest(),
            "md5_attrs": "",
            "receipt_handle": None,
            "sent_at": now,
            "visible_at": now,
            "receive_count": 0,
            "first_receive_at": None,
            "message_attributes": {},
            "sys": {"SenderId": "000000000000", "SentTimestamp": str(int(now * 1000))},
            "group_id": None,
            "dedup_id": None,
            "dedup_cache_key": None,
            "seq": None,
        }
    )
    lambda_svc.esm_wake.set()


if __name__ == "__main__":
    lambda_svc.invoke_async_with_retry = invoke
    app.main()
