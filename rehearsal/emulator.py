"""Runs ministack with additions that Stepwell needs.

- Success destinations of asynchronous invocations, sent with the function's role. ministack has only failure
  destinations.
- Custom runtimes with the bootstrap in a layer.
- The IAM permissions that AWS requires, where ministack requires others.

It is run by ministack's own Python.
"""

from __future__ import annotations

import io
import json
import os
import time
import uuid
import zipfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any

import boto3
from ministack import app
from ministack.core import iam_actions
from ministack.core.lambda_runtime import execution_credentials
from ministack.services import iam, lambda_svc, sqs
from ministack.services.cloudformation import provisioners

Json = dict[str, Any]

_invocations = ThreadPoolExecutor(2 * (os.cpu_count() or 1))  # further invocations wait, as in Lambda's own queue
_with_layer_files: dict[str, bytes] = {}  # ARN and code hash of a function -> zip of the code and the layers


def invoke(func: Json, event: Json) -> None:
    """Runs an asynchronous invocation without retries, and sends the record to the destination."""
    config = func.get("config") or func
    invocation = func.get("event_invoke_config") or (func.get("event_invoke_configs") or {}).get("$LATEST") or {}
    destinations = invocation.get("DestinationConfig") or {}

    def run() -> None:
        account, region = lambda_svc._account_region_from_function_config(config)
        lambda_svc._request_account_id.set(account)
        lambda_svc._request_region.set(region)
        result = lambda_svc._execute_function(_with_layers(func, config), event)
        failed = bool(result.get("error"))
        arn = (destinations.get("OnFailure" if failed else "OnSuccess") or {}).get("Destination")
        if arn:
            _send(arn, _record(config["FunctionArn"], event, result, failed), config)

    _invocations.submit(run).add_done_callback(Future.result)  # logs exceptions


def _with_layers(func: Json, config: Json) -> Json:
    """The function with the files of the layers added to the code, if it has a custom runtime."""
    if not config.get("Runtime", "").startswith("provided") or not config.get("Layers"):
        return func
    name = f"{config['FunctionArn']} {config['CodeSha256']}"
    if name not in _with_layer_files:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as whole:
            for part in (func["code_zip"], *map(lambda_svc._resolve_layer_zip, config["Layers"])):
                with zipfile.ZipFile(io.BytesIO(part)) as archive:
                    for entry in archive.infolist():
                        whole.writestr(entry, archive.read(entry))
        _with_layer_files[name] = content.getvalue()
    return {**func, "code_zip": _with_layer_files[name]}


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


@cache
def _sender(key: str, secret: str, token: str, region: str) -> Any:
    url = f"http://localhost:{os.environ['GATEWAY_PORT']}"
    return boto3.Session(key, secret, token, region).client("sqs", endpoint_url=url)


def _send(arn: str, record: Json, config: Json) -> None:
    """Sends a record to a queue with the function's role, as Lambda does.

    It does not append to the queue's list of messages: readers of the queue replace that list, so messages would be
    lost.
    """
    keys = execution_credentials(config)
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    sender = _sender(*(keys[name] for name in names), region=arn.split(":")[3])
    sender.send_message(QueueUrl=sqs._queue_url(arn.split(":")[5]), MessageBody=json.dumps(record))


def sqs_actions(action_of: Callable[..., str | None]) -> Callable[..., str | None]:
    """Makes batch actions of SQS require the permission of the single action. ministack requires separate ones."""

    def permission(service: str, *request: Any) -> str | None:
        action = action_of(service, *request)
        return action.removesuffix("Batch") if action and service == "sqs" else action

    return permission


def lambda_actions(action_of: Callable[..., str | None]) -> Callable[..., str | None]:
    """Makes some requests to Lambda require the right action: event invoke configuration, recursion configuration, and
    versions of a layer. ministack requires other actions."""

    def permission(service: str, method: str, path: str, *request: Any) -> str | None:
        for ending, what in (("/event-invoke-config", "EventInvokeConfig"), ("/recursion-config", "RecursionConfig")):
            if service == "lambda" and path.partition("?")[0].endswith(ending):
                return f"lambda:{method.capitalize()}Function{what}"
        if (
            service == "lambda"
            and method == "GET"
            and path.partition("?")[0].endswith("/versions")
            and "/layers/" in path
        ):
            return "lambda:ListLayerVersions"
        return action_of(service, method, path, *request)

    return permission


def lambda_arns(arn_of: Callable[..., str]) -> Callable[..., str]:
    """Makes CreateFunction require permission for the function's ARN. ministack requires it for all functions."""

    def resource(service: str, method: str, path: str, headers: Any, body: bytes, *rest: Any) -> str:
        if service == "lambda" and method == "POST" and path.rstrip("/").endswith("/functions"):
            path = f"{path.rstrip('/')}/{json.loads(body)['FunctionName']}"
        return arn_of(service, method, path, headers, body, *rest)

    return resource


def parameter_arns(arn_of: Callable[..., str]) -> Callable[..., str]:
    """Makes GetParameters of one parameter require permission for that parameter. ministack requires it for all."""

    def resource(service: str, method: str, path: str, headers: Any, body: bytes, *rest: Any) -> str:
        names = json.loads(body).get("Names", []) if service == "ssm" and body else []
        if len(names) == 1:
            body = json.dumps({"Name": names[0]}).encode()
        return arn_of(service, method, path, headers, body, *rest)

    return resource


def leading_keys(context_of: Callable[[bytes], Json]) -> Callable[[bytes], Json]:
    """Adds the condition key `dynamodb:LeadingKeys` with the partitions in a request, which ministack lacks."""

    def context(body: bytes) -> Json:
        request = json.loads(body or b"{}")
        named = [request[part]["pk"]["S"] for part in ("Key", "Item") if part in request]
        if "KeyConditionExpression" in request:
            value = request["KeyConditionExpression"].split()[2]
            named.append(request["ExpressionAttributeValues"][value]["S"])
        for batch in request.get("RequestItems", {}).values():
            named += [key["pk"]["S"] for key in batch["Keys"]] if isinstance(batch, dict) else []
            for write in batch if isinstance(batch, list) else []:
                named += [(item.get("Key") or item["Item"])["pk"]["S"] for item in write.values()]
        return {**context_of(body), "dynamodb:LeadingKeys": named}

    return context


def condition_keys(keys_of: Callable[..., Json]) -> Callable[..., Json]:
    """Adds the condition key `iam:PermissionsBoundary` of the role in a request, which ministack lacks."""

    def keys(service: str, action: str, body: bytes, parameters: Json) -> Json:
        found = keys_of(service, action, body, parameters)
        if service == "iam":
            found = {**found, "iam:PermissionsBoundary": _boundary(action, parameters)}
        return found

    return keys


def _boundary(action: str, parameters: Json) -> str:
    """The boundary in a request, or that of the role in the request."""

    def given(name: str) -> str:
        value = parameters.get(name, "")
        return str(value[0] if isinstance(value, list) else value)

    if action in ("iam:CreateRole", "iam:PutRolePermissionsBoundary"):
        return given("PermissionsBoundary")
    return str((iam._roles.get(given("RoleName")) or {}).get("PermissionsBoundary") or "")


def as_if_tls(pin: Callable[[str, bool], None]) -> Callable[[str, bool], None]:
    """Treats plain HTTP as TLS for policies that require TLS, since all requests stay on this machine."""
    return lambda address, is_tls: pin(address, True)


def queried_alarms(record_of: Callable[[str, Json], Json]) -> Callable[[str, Json], Json]:
    """Replaces a metrics query in an alarm with a metric of that name, since ministack has no queries."""

    def record(name: str, properties: Json) -> Json:
        queries = properties.pop("Metrics", None)
        if queries:
            properties |= {"Namespace": "queries", "MetricName": str(queries[0]["Expression"])}
        return record_of(name, properties)

    return record


if __name__ == "__main__":
    provisioners._cw_metric_alarm_record = queried_alarms(provisioners._cw_metric_alarm_record)
    lambda_svc.invoke_async_with_retry = invoke
    iam_actions.extract_iam_action = lambda_actions(sqs_actions(iam_actions.extract_iam_action))
    iam_actions.request_tag_context = condition_keys(iam_actions.request_tag_context)
    iam_actions.extract_resource_arn = lambda_arns(parameter_arns(iam_actions.extract_resource_arn))
    iam_actions.dynamodb_service_context = leading_keys(iam_actions.dynamodb_service_context)
    app.pin_request_origin = as_if_tls(app.pin_request_origin)
    app.main()
