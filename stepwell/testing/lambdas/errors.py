"""The errors of Lambda itself: payloads that replace a function's answer, and refusals of invocations."""

from __future__ import annotations

import json
import signal

MAX_RESPONSE = 6_291_556
MAX_REQUEST = 6_291_456
MAX_ASYNC_REQUEST = 1_048_576
_SIGNALS: dict[int, str] = {  # the names that Go prints
    signal.SIGKILL: "killed",
    signal.SIGTERM: "terminated",
    signal.SIGSEGV: "segmentation fault",
    signal.SIGABRT: "aborted",
    signal.SIGINT: "interrupt",
}


def error_payload(kind: str, message: str) -> bytes:
    return json.dumps({"errorType": kind, "errorMessage": message}).encode()


def timeout_error(request_id: str, seconds: int) -> bytes:
    message = f"RequestId: {request_id} Error: Task timed out after {seconds:.2f} seconds"
    return error_payload("Sandbox.Timedout", message)


def exit_error(request_id: str, code: int) -> bytes:
    """The error of a process that exited. `code` is as in `subprocess`: negative for a signal."""
    reason = f"exit status {code}" if code >= 0 else f"signal: {_SIGNALS.get(-code, str(-code))}"
    text = "Runtime exited without providing a reason" if code == 0 else f"Runtime exited with error: {reason}"
    return error_payload("Runtime.ExitError", f"RequestId: {request_id} Error: {text}")


def entrypoint_error(request_id: str, reason: str) -> bytes:
    return error_payload("Runtime.InvalidEntrypoint", f"RequestId: {request_id} {reason}")


def response_too_large(size: int) -> bytes:
    return error_payload(
        "Function.ResponseSizeTooLarge",
        f"Response payload size ({size} bytes) exceeded maximum allowed payload size ({MAX_RESPONSE} bytes).",
    )


class LambdaError(Exception):
    """Lambda refuses the invocation."""

    def __init__(self, status: int, code: str, message: str, **more: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code
        self.body = json.dumps({"Type": "User", "message": message, "Message": message, **more}).encode()


def throttled() -> LambdaError:
    return LambdaError(429, "TooManyRequestsException", "Rate Exceeded.", Reason="ConcurrentInvocationLimitExceeded")


def not_json(message: str) -> LambdaError:
    return LambdaError(400, "InvalidRequestContentException", f"Could not parse request body into json: {message}")


def request_too_large(limit: int) -> LambdaError:
    message = f"Request must be smaller than {limit} bytes for the InvokeFunction operation"
    return LambdaError(413, "RequestTooLargeException", message)
