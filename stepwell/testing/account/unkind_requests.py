"""Injects faults into requests: refuses them, loses answers, carries out a part, returns outdated data.

The faults are injected in place of the response from the network, so boto3's own retries are tested too.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from botocore.awsrequest import AWSPreparedRequest, AWSResponse

from stepwell.testing.account.unkindness import CALLER, ENGINE, Unkindness

Json = dict[str, Any]
Send = Callable[[AWSPreparedRequest], AWSResponse | None]
Answer = Callable[..., AWSResponse]
_LOSING = re.compile(r"(dynamodb|sqs|eventbridge)\..*|lambda\.Invoke")
_LOST_ONLY_WRITES = re.compile(r".*\.(Get|Batch|Query|List|Describe|Receive).*")
_NEW_S = 60
_BUSY_READS = 2  # how many reads report a new or changed Lambda as busy
_PATH = re.compile(r"/functions/([^/?]+)")
_CANNOT_ASSUME = "The role defined for the function cannot be assumed by Lambda."
_IN_PROGRESS = "The operation cannot be performed at this time. An update is in progress for resource"
_CODES = {
    "dynamodb": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
    "sqs": "RequestThrottled",
}


class UnkindRequests:
    """`answer` builds a response from a request, a status, a body and headers. `now`: ms since the epoch."""

    def __init__(self, unkindness: Unkindness, answer: Answer, now: Callable[[], int]) -> None:
        self.unkindness, self._answer, self._now = unkindness, answer, now
        self._busy: Counter[str] = Counter()  # reads left for which a Lambda is pending or being changed
        self._made: dict[str, int] = {}  # when Lambdas were created
        self._roles: set[str] = set()  # roles that Lambda can assume by now
        self._written: dict[str, int] = {}  # when items were written

    def send(self, operation: str, request: AWSPreparedRequest, send: Send) -> AWSResponse | None:
        """Answers a request, with or without a fault. `send` carries the request out."""
        unkindness = self.unkindness
        if unkindness.actor is None or not operation:
            return send(request)
        if unkindness.actor == ENGINE:
            unkindness.before_request()
        before = unkindness.refusals(operation)
        refusal = self._refusal(operation, request)
        if refusal is not None:
            return refusal
        response = self._in_part(operation, request, send)
        self._remember(operation, request)
        if self._is_lost(operation):
            return self._error(operation, request, 500, "InternalServerError", "done, but the answer is lost")
        if unkindness.refusals(operation) == before:
            unkindness.accepted(operation)
        return response

    # --- refused -----------------------------------------------------------------------------------------------------

    def _refusal(self, operation: str, request: AWSPreparedRequest) -> AWSResponse | None:
        if self.unkindness.throttles(operation):
            return self._throttled(operation, request)
        match operation:
            case "lambda.CreateFunction":
                return self._new_role(operation, request)
            case "lambda.UpdateFunctionConfiguration" | "lambda.UpdateFunctionCode":
                if self._busy[_function(request)]:
                    self.unkindness.note(f"was busy at {operation}")
                    return self._error(operation, request, 409, "ResourceConflictException", _IN_PROGRESS)
            case "lambda.Invoke":
                return self._unknown(operation, request)
        return None

    def _new_role(self, operation: str, request: AWSPreparedRequest) -> AWSResponse | None:
        role = json.loads(request.body)["Role"]
        if role in self._roles or not self.unkindness.happens("new role", self.unkindness.new_functions):
            self._roles.add(role)
            return None
        self.unkindness.note("did not know a new role")
        return self._error(operation, request, 400, "InvalidParameterValueException", _CANNOT_ASSUME)

    def _unknown(self, operation: str, request: AWSPreparedRequest) -> AWSResponse | None:
        name = _function(request)
        is_new = self._now() - self._made.get(name, -_NEW_S * 1000) < _NEW_S * 1000
        if not is_new or not self.unkindness.happens("unknown function", self.unkindness.unknown_functions):
            return None
        self.unkindness.note("did not know a new Lambda")
        return self._error(operation, request, 404, "ResourceNotFoundException", f"Function not found: {name}")

    def _throttled(self, operation: str, request: AWSPreparedRequest) -> AWSResponse:
        service = operation.partition(".")[0]
        if service == "lambda":
            return self._error(operation, request, 429, "TooManyRequestsException", "Rate Exceeded.")
        if service == "s3":
            text = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
            return self._answer(request, 503, text, content_type="application/xml")
        if service in ("iam", "sts"):
            error = "<Type>Sender</Type><Code>Throttling</Code><Message>Rate exceeded</Message>"
            text = f"<ErrorResponse><Error>{error}</Error><RequestId>1</RequestId></ErrorResponse>".encode()
            return self._answer(request, 400, text, content_type="text/xml")
        return self._error(operation, request, 400, _CODES.get(service, "ThrottlingException"), "Rate exceeded")

    def _error(self, operation: str, request: AWSPreparedRequest, status: int, code: str, text: str) -> AWSResponse:
        body = {"__type": code, "message": text, "Message": text, "Type": "User"}
        return self._answer(request, status, json.dumps(body).encode(), x_amzn_errortype=code.rpartition("#")[2])

    # --- lost --------------------------------------------------------------------------------------------------------

    def _is_lost(self, operation: str) -> bool:
        unkindness = self.unkindness
        if not _LOSING.fullmatch(operation) or _LOST_ONLY_WRITES.fullmatch(operation):
            return False
        if not unkindness.may_refuse(operation) or not unkindness.happens(f"lost {operation}", unkindness.lost_answers):
            return False
        unkindness.refused(operation, "lost the answer of")
        return True

    # --- in part -----------------------------------------------------------------------------------------------------

    def _in_part(self, operation: str, request: AWSPreparedRequest, send: Send) -> AWSResponse | None:
        match operation:
            case "sqs.SendMessageBatch" | "eventbridge.PutEvents":
                return self._entries(operation, request, send)
            case "dynamodb.BatchWriteItem" | "dynamodb.BatchGetItem":
                return self._items(operation, request, send)
            case "dynamodb.Query":
                return self._without_new_items(request, send(request))
            case "lambda.GetFunction" | "lambda.GetFunctionConfiguration":
                return self._not_yet(operation, request, send(request))
            case "ecs.ListTasks":
                return self._unlisted(request, send(request))
        return send(request)

    def _choose_refused(self, operation: str, of: list[Any]) -> list[bool]:
        """Chooses which entries of a batch are refused; often none."""
        unkindness = self.unkindness
        if not unkindness.may_refuse(operation) or not unkindness.happens(
            f"partial {operation}", unkindness.partial_failures
        ):
            return [False] * len(of)
        chosen = [unkindness.happens(f"part {operation}", 0.5) for _ in of]
        if all(chosen):  # a partial failure leaves at least one
            chosen[unkindness.below(f"spared {operation}", len(of))] = False
        if any(chosen):
            unkindness.refused(operation, "refused a part of")
        return chosen

    def _entries(self, operation: str, request: AWSPreparedRequest, send: Send) -> AWSResponse | None:
        body = json.loads(request.body)
        entries = body["Entries"]
        refused = self._choose_refused(operation, entries)
        if not any(refused):
            return send(request)
        accepted = [entry for entry, is_refused in zip(entries, refused, strict=True) if not is_refused]
        response = send(_with_body(request, {**body, "Entries": accepted}))
        if response is None or response.status_code != 200:
            return response
        found = json.loads(response.content)
        if operation == "sqs.SendMessageBatch":
            error = {"SenderFault": False, "Code": "ServiceUnavailable", "Message": "try again"}
            failed = [{"Id": e["Id"], **error} for e, is_refused in zip(entries, refused, strict=True) if is_refused]
            found["Failed"] = [*found.get("Failed", ()), *failed]
        else:
            sent = iter(found["Entries"])
            error = {"ErrorCode": "ThrottlingException", "ErrorMessage": "Rate exceeded"}
            found["Entries"] = [error if is_refused else next(sent) for is_refused in refused]
            found["FailedEntryCount"] = sum("ErrorCode" in entry for entry in found["Entries"])
        return self._answer(request, 200, json.dumps(found).encode())

    def _items(self, operation: str, request: AWSPreparedRequest, send: Send) -> AWSResponse | None:
        body = json.loads(request.body)
        is_read = operation == "dynamodb.BatchGetItem"
        requested = [
            (table, item)
            for table, entry in body["RequestItems"].items()
            for item in (entry["Keys"] if is_read else entry)
        ]
        refused = self._choose_refused(operation, requested)
        if not any(refused):
            return send(request)
        parts: list[Json] = []
        for wanted in (False, True):
            part: Json = {}
            for (table, item), is_refused in zip(requested, refused, strict=True):
                if is_refused is wanted and is_read:
                    part.setdefault(table, {**body["RequestItems"][table], "Keys": []})["Keys"].append(item)
                elif is_refused is wanted:
                    part.setdefault(table, []).append(item)
            parts.append(part)
        response = send(_with_body(request, {**body, "RequestItems": parts[0]}))
        if response is None or response.status_code != 200:
            return response
        found = json.loads(response.content)
        found["UnprocessedKeys" if is_read else "UnprocessedItems"] = parts[1]
        return self._answer(request, 200, json.dumps(found).encode())

    # --- outdated answers --------------------------------------------------------------------------------------------

    def _remember(self, operation: str, request: AWSPreparedRequest) -> None:
        """Records items and Lambdas that are so new that they may be missing in answers."""
        match operation:
            case "dynamodb.PutItem":
                self._written[_key(json.loads(request.body)["Item"])] = self._now()
            case "dynamodb.BatchWriteItem":
                for requests in json.loads(request.body)["RequestItems"].values():
                    for item in requests:
                        if "PutRequest" in item:
                            self._written[_key(item["PutRequest"]["Item"])] = self._now()
            case "lambda.CreateFunction":
                self._made[name := json.loads(request.body)["FunctionName"]] = self._now()
                self._be_busy(name)
            case "lambda.UpdateFunctionConfiguration" | "lambda.UpdateFunctionCode":
                self._be_busy(_function(request))

    def _be_busy(self, name: str) -> None:
        if self.unkindness.happens("busy function", self.unkindness.new_functions):
            self._busy[name] = _BUSY_READS

    def _without_new_items(self, request: AWSPreparedRequest, response: AWSResponse | None) -> AWSResponse | None:
        unkindness = self.unkindness
        if unkindness.actor == CALLER or response is None or response.status_code != 200:
            return response
        if "IndexName" not in json.loads(request.body) or not unkindness.happens(
            "lagging index", unkindness.lagging_indexes
        ):
            return response
        found = json.loads(response.content)
        known = [item for item in found["Items"] if self._now() - self._written.get(_key(item), 0) >= 1000]
        if len(known) == len(found["Items"]):
            return response
        unkindness.note("left new items out of the index")
        return self._answer(request, 200, json.dumps({**found, "Items": known, "Count": len(known)}).encode())

    def _not_yet(self, operation: str, request: AWSPreparedRequest, response: AWSResponse | None) -> AWSResponse | None:
        name = _function(request)
        if response is None or response.status_code != 200 or not self._busy[name]:
            return response
        self._busy[name] -= 1
        self.unkindness.note("showed a Lambda as pending")
        found = json.loads(response.content)
        configuration = found["Configuration"] if operation == "lambda.GetFunction" else found
        configuration |= {"State": "Pending", "LastUpdateStatus": "InProgress"}
        return self._answer(request, 200, json.dumps(found).encode())

    def _unlisted(self, request: AWSPreparedRequest, response: AWSResponse | None) -> AWSResponse | None:
        unkindness = self.unkindness
        if response is None or not unkindness.happens("lagging list", unkindness.lagging_lists):
            return response
        unkindness.note("listed no tasks")
        return self._answer(request, 200, b'{"taskArns": []}')


def _with_body(request: AWSPreparedRequest, body: Json) -> AWSPreparedRequest:
    request.body = json.dumps(body).encode()
    request.headers["Content-Length"] = str(len(request.body))
    return request


def _key(item: Json) -> str:
    return f"{item['pk']['S']}|{item['sk']['S']}"


def _function(request: AWSPreparedRequest) -> str:
    match = _PATH.search(request.url)
    return match[1] if match is not None else ""
