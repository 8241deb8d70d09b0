"""What AWS charges, in one table, and what a thing costs that uses so and so much of it.

Prices of us-east-1, on demand, without free tiers, arm64 for Lambda: those the platform was designed with, in 2026.
The pages named here are where to check them; they were not read again.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

MILLION = 1_000_000
GIB = 1024**3

# For a million of each, but for logs: for a GB.
HTTP_REQUEST = 1.00  # https://aws.amazon.com/api-gateway/pricing/, HTTP API, first 300 million
BUS_EVENT = 1.00  # https://aws.amazon.com/eventbridge/pricing/, custom events, each begun 64 KB
QUEUE_REQUEST = 0.40  # https://aws.amazon.com/sqs/pricing/, standard queue, each begun 64 KB
LAMBDA_REQUEST = 0.20  # https://aws.amazon.com/lambda/pricing/
LAMBDA_GB_S = 13.3334
WRITE_UNIT = 0.625  # https://aws.amazon.com/dynamodb/pricing/on-demand/
READ_UNIT = 0.125
LOG_GB = 0.50  # https://aws.amazon.com/cloudwatch/pricing/

# For a million runs of three steps. Not measured; docs/cost.md says what is assumed.
STANDARD = 102.0  # Step Functions Standard: four state transitions at $25 a million, and $2 for an HTTP API and a bus
DURABLE = 35.0  # Lambda durable functions, as in the design
INNGEST = 200.0  # four executions (a run and its steps) at $50 a million, as we assume for what is beyond a plan's own


def express(seconds: float) -> float:
    """Step Functions Express: a request, and 64 MB for as long as the run takes; and the $2."""
    return 1.00 + 16.67 * seconds * 64 / 1024 + 2.00


@dataclass(slots=True)
class Usage:
    """What is billed, for one event or run."""

    http_requests: float = 0
    bus_events: float = 0
    queue_requests: float = 0
    lambda_requests: float = 0
    lambda_gb_s: float = 0
    write_units: float = 0
    read_units: float = 0
    log_bytes: float = 0

    def __iadd__(self, other: Usage) -> Usage:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
        return self

    def __truediv__(self, number: float) -> Usage:
        return Usage(*(getattr(self, field.name) / number for field in fields(self)))


def dollars(usage: Usage) -> dict[str, float]:
    """For a million of what uses this, by service."""
    return {
        "HTTP API": usage.http_requests * HTTP_REQUEST,
        "EventBridge": usage.bus_events * BUS_EVENT,
        "SQS": usage.queue_requests * QUEUE_REQUEST,
        "Lambda requests": usage.lambda_requests * LAMBDA_REQUEST,
        "Lambda GB-s": usage.lambda_gb_s * LAMBDA_GB_S,
        "DynamoDB writes": usage.write_units * WRITE_UNIT,
        "DynamoDB reads": usage.read_units * READ_UNIT,
        "Logs": usage.log_bytes * MILLION / GIB * LOG_GB,
    }


def total(usage: Usage) -> float:
    return sum(dollars(usage).values())
