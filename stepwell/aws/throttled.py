"""The HTTP answer when AWS throttles requests, even after boto3's own retries."""

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
    """A 503 for the client, if the error is about throttling. Re-raises any other error."""
    if error.response["Error"]["Code"] not in _CODES:
        raise error
    return Problem(503, "AWS throttles the requests of this server; try again", {"retry-after": "1"})
