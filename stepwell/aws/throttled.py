"""Requests that AWS refuses since there are too many of them, also after boto3's own tries."""

from __future__ import annotations

from botocore.exceptions import ClientError

from stepwell.api.http.problem import Problem

_CODES = frozenset(  # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html
    {
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)


def throttled(error: ClientError) -> Problem:
    """The answer to who asked the server. Raises the error itself if it is of another kind."""
    if error.response["Error"]["Code"] not in _CODES:
        raise error
    return Problem(503, "AWS throttles the server; try again", {"retry-after": "1"})
