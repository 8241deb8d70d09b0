"""The prices of AWS in one table, and the cost of a usage.

Prices are those of us-east-1: on demand, arm64 for Lambda, the first tier, without free tiers. Each has the page where
it can be checked, and how it was read on the day `READ`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

MILLION = 1_000_000
GIB = 1024**3
MONTH_S = 30 * 86_400
READ = "2026-11-29"
PAGE, QUOTED, KNOWN = "the page, as stored", "quoted by others", "from memory"
"""How a price was read: no page could be opened live, so each is as good as what a search found."""

_AWS = "https://aws.amazon.com"


@dataclass(frozen=True, slots=True)
class Price:
    dollars: float
    unit: str
    url: str
    how: str = QUOTED


HTTP_REQUEST = Price(1.00, "million requests, per started 512 KB", f"{_AWS}/api-gateway/pricing/")
BUS_EVENT = Price(1.00, "million custom events, per started 64 KB", f"{_AWS}/eventbridge/pricing/")
QUEUE_REQUEST = Price(0.40, "million requests of a standard queue, per started 64 KB", f"{_AWS}/sqs/pricing/")
LAMBDA_REQUEST = Price(0.20, "million requests", f"{_AWS}/lambda/pricing/")
LAMBDA_GB_S = Price(13.3334, "million GB-s, arm64; includes cold starts", f"{_AWS}/lambda/pricing/")
WRITE_UNIT = Price(0.625, "million write units", f"{_AWS}/dynamodb/pricing/on-demand/")
READ_UNIT = Price(0.125, "million read units", f"{_AWS}/dynamodb/pricing/on-demand/")
TABLE_GB = Price(0.25, "GB and month", f"{_AWS}/dynamodb/pricing/on-demand/")
RESTORE_GB = Price(0.20, "GB and month, for any second of the last 35 days", f"{_AWS}/dynamodb/pricing/on-demand/")
LOG_GB = Price(0.50, "GB ingested; includes metrics in the embedded format", f"{_AWS}/cloudwatch/pricing/")
LOG_KEPT_GB = Price(0.03, "GB and month, compressed", f"{_AWS}/cloudwatch/pricing/")
METRIC = Price(0.30, "custom metric and month, only for hours with a value", f"{_AWS}/cloudwatch/pricing/")
ALARM = Price(0.10, "alarm and month", f"{_AWS}/cloudwatch/pricing/")
DASHBOARD = Price(3.00, "dashboard and month, beyond three", f"{_AWS}/cloudwatch/pricing/")
KEY = Price(1.00, "KMS key and month", f"{_AWS}/kms/pricing/")
KEY_REQUEST = Price(3.00, "million requests to KMS", f"{_AWS}/kms/pricing/")
OUT_GB = Price(0.09, "GB to the internet", f"{_AWS}/ec2/pricing/on-demand/")
TRACE = Price(5.00, "million traces of X-Ray", f"{_AWS}/xray/pricing/")
VCPU_HOUR = Price(0.04048, "vCPU and hour of Fargate, x86, at least one minute", f"{_AWS}/fargate/pricing/")
GB_HOUR = Price(0.004445, "GB and hour of Fargate, x86", f"{_AWS}/fargate/pricing/")
ADDRESS_HOUR = Price(0.005, "public IPv4 address and hour", f"{_AWS}/vpc/pricing/", KNOWN)
S3_PUT = Price(5.00, "million PUT requests", f"{_AWS}/s3/pricing/")
S3_GET = Price(0.40, "million GET requests", f"{_AWS}/s3/pricing/")

PRICES = {
    "HTTP API": HTTP_REQUEST,
    "EventBridge": BUS_EVENT,
    "SQS": QUEUE_REQUEST,
    "Lambda requests": LAMBDA_REQUEST,
    "Lambda time": LAMBDA_GB_S,
    "DynamoDB writes": WRITE_UNIT,
    "DynamoDB reads": READ_UNIT,
    "DynamoDB storage": TABLE_GB,
    "DynamoDB point-in-time recovery": RESTORE_GB,
    "CloudWatch Logs": LOG_GB,
    "CloudWatch Logs, storage": LOG_KEPT_GB,
    "CloudWatch metrics": METRIC,
    "CloudWatch alarms": ALARM,
    "CloudWatch dashboards": DASHBOARD,
    "KMS key": KEY,
    "KMS requests": KEY_REQUEST,
    "Data transfer": OUT_GB,
    "X-Ray": TRACE,
    "Fargate vCPU": VCPU_HOUR,
    "Fargate memory": GB_HOUR,
    "Public address": ADDRESS_HOUR,
    "S3 PUT": S3_PUT,
    "S3 GET": S3_GET,
}


@dataclass(slots=True)
class Usage:
    """Billed usage of one event or run."""

    http_requests: float = 0
    bus_events: float = 0
    queue_requests: float = 0
    lambda_requests: float = 0
    lambda_gb_s: float = 0
    write_units: float = 0
    read_units: float = 0
    log_bytes: float = 0
    out_bytes: float = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def __sub__(self, other: Usage) -> Usage:
        return self + other * -1

    def __mul__(self, number: float) -> Usage:
        return Usage(*(getattr(self, field.name) * number for field in fields(self)))

    def __truediv__(self, number: float) -> Usage:
        return self * (1 / number)


def dollars(usage: Usage) -> dict[str, float]:
    """Dollars per million of this usage, by service."""
    gib = MILLION / GIB
    return {
        "HTTP API": usage.http_requests * HTTP_REQUEST.dollars,
        "EventBridge": usage.bus_events * BUS_EVENT.dollars,
        "SQS": usage.queue_requests * QUEUE_REQUEST.dollars,
        "Lambda requests": usage.lambda_requests * LAMBDA_REQUEST.dollars,
        "Lambda time": usage.lambda_gb_s * LAMBDA_GB_S.dollars,
        "DynamoDB writes": usage.write_units * WRITE_UNIT.dollars,
        "DynamoDB reads": usage.read_units * READ_UNIT.dollars,
        "Logs": usage.log_bytes * gib * LOG_GB.dollars,
        "Data transfer": usage.out_bytes * gib * OUT_GB.dollars,
    }


def total(usage: Usage) -> float:
    """Dollars per million of this usage."""
    return sum(dollars(usage).values())
