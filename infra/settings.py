"""The settings of an environment, from CDK's context: `-c name=value`, or `context` in cdk.json.

README.md has a table of them. `setting_fields` reads and checks them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from infra.setting_fields import BadSetting, field_problems, parsed, refuse_unknown, setting, table_of

DAYS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653)
"""The retention periods that CloudWatch Logs supports."""
PROFILES: Mapping[str, Mapping[str, Any]] = {
    "dev": {"alarms": False, "dashboard": False, "metrics": False, "point_in_time_recovery": False, "log_days": 3}
}
"""The defaults that a profile changes, compared with `standard`."""
LEAST_WARM = (12_000, 4_000)
"""The reads and writes a second that every on-demand table takes from the start; the lower limit of the setting.
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/warm-throughput.html"""


@dataclass(frozen=True)
class Settings:
    env: str = setting(
        "dev",
        "Name of the environment; several can share an account",
        pattern=r"[a-z][a-z0-9-]{0,23}",
        hint="a name of up to 24 characters (a-z, 0-9 and -) that begins with a letter",
    )

    profile: str = setting(
        "standard",
        "Defaults of other settings: with `dev`, an idle environment costs less than $1 a month",
        one_of=("standard", "dev"),
    )

    # --- events and requests ---
    ingest: str = setting(
        "bus",
        "How `POST /e` sends events on: over the event `bus`, or `direct` to the queue, which is cheaper and faster",
        one_of=("bus", "direct"),
    )
    throttle_rate: int = setting(500, "Requests a second that the API accepts on average", low=1, high=10_000)
    throttle_burst: int = setting(1000, "Requests that the API accepts at once", low=1, high=5_000)
    domain: str = setting("", "Domain name of the API, such as `events.example.com`; needs `certificate`")
    certificate: str = setting(
        "",
        "ARN of the domain's certificate in AWS Certificate Manager, in this region",
        pattern=r"arn:aws[a-z-]*:acm:[a-z0-9-]+:\d{12}:certificate/.+",
        hint="the ARN of a certificate, arn:aws:acm:...:certificate/...",
    )
    archive_days: int = setting(0, "Days for which EventBridge keeps all events of the bus; 0: no archive", low=0)

    # --- Lambdas ---
    architecture: str = setting("arm64", "Processor architecture of the engine's Lambdas", one_of=("arm64", "x86_64"))
    python: str = setting("3.13", "Python version of the engine's Lambdas", one_of=("3.11", "3.12", "3.13", "3.14"))
    memory: int = setting(1024, "Memory of the Lambdas `route` and `advance`, MB", low=256, high=10_240)
    batch_size: int = setting(10, "Messages per batch of `route` and `advance`", low=1, high=10)
    route_concurrency: int = setting(20, "Maximum number of concurrent instances of `route`", low=2, high=1000)
    advance_concurrency: int = setting(50, "Maximum number of concurrent instances of `advance`", low=2, high=1000)
    batching_window: int = setting(
        0,
        "Seconds for which Lambda collects messages for a batch: cheaper at low traffic, but delays each step",
        low=0,
        high=300,
    )
    reserved_concurrency: bool = setting(
        False,
        "Reserve `route_concurrency` and `advance_concurrency` instances; not for accounts with a limit of 10",
    )
    ingest_concurrency: int = setting(0, "Instances reserved for `ingest`, also the limit; 0: none", low=0, high=1000)
    api_concurrency: int = setting(0, "Instances reserved for `api`, also the limit; 0: none", low=0, high=1000)
    tick_concurrency: int = setting(0, "Instances reserved for `tick`, also the limit; 0: none", low=0, high=1000)
    step_concurrency: int = setting(
        0,
        "Instances that `stepwell push` reserves for the Lambda of each step, also the limit; 0: none, steps share the"
        " account's limit",
        low=0,
        high=1000,
    )
    event_age_s: int = setting(
        3600, "How long a step may wait for a free Lambda before it is started again, seconds", low=60, high=21_600
    )
    step_lambdas: str = setting(
        "",
        "ARNs of your own Lambdas that steps may name in `runtime.arn`, separated by commas",
        pattern=r"arn:aws[a-z-]*:lambda:[^,]+(,arn:aws[a-z-]*:lambda:[^,]+)*",
        hint="a list of ARNs of Lambdas, separated by commas",
    )
    log_level: str = setting(
        "INFO", "Lowest level that the engine's Lambdas log", one_of=("DEBUG", "INFO", "WARNING", "ERROR")
    )
    tracing: bool = setting(
        False,
        "X-Ray traces of a sample of the invocations (one a second, and 5% of the others), with each request to AWS;"
        " also of Lambda steps without a `tracing` of their own",
    )
    step_subnets: str = setting(
        "",
        "Ids of the subnets for Lambda steps with `vpc: true`, separated by commas; needs `step_security_groups`",
        pattern=r"subnet-[0-9a-f]+(,subnet-[0-9a-f]+){0,15}",
        hint="a list of up to 16 ids of subnets, separated by commas",
    )
    step_security_groups: str = setting(
        "",
        "Ids of the security groups of Lambda steps with `vpc: true`, separated by commas",
        pattern=r"sg-[0-9a-f]+(,sg-[0-9a-f]+){0,4}",
        hint="a list of up to 5 ids of security groups, separated by commas",
    )

    # --- containers ---
    vpc: str = setting(
        "",
        "VPC of container steps: its id, or `default` for the account's own; empty: no container steps",
        pattern=r"default|vpc-[0-9a-f]+",
        hint="`default` or the id of a VPC",
    )
    subnets: str = setting(
        "",
        "Ids of the subnets for container steps, separated by commas; empty: CDK looks them up in the VPC",
        pattern=r"subnet-[0-9a-f]+(,subnet-[0-9a-f]+)*",
        hint="a list of ids of subnets, separated by commas",
    )
    spot: bool = setting(
        False,
        "Run container steps on Fargate Spot: cheaper, but AWS may stop them; such an attempt is lost and repeated",
    )

    # --- data ---
    warm_throughput: str = setting(
        "",
        "Reads and writes a second that the table and the index take from the start, such as `24000/8000`; there is a"
        " one-time charge, and the value can only be raised",
        pattern=r"\d{1,9}/\d{1,9}",
        hint="reads/writes a second, such as 24000/8000",
    )
    keep_data: bool = setting(
        True, "`cdk destroy` keeps the table, the bucket and the image repository; the table is protected from deletion"
    )
    table: str = setting(
        "",
        "Name of an existing table to use, such as one restored from a point in time, instead of a new one; once set,"
        " it must not be removed",
        pattern=r"[A-Za-z0-9_.-]{3,255}",
        hint="the name of a DynamoDB table in this account and region",
    )
    point_in_time_recovery: bool = setting(True, "The table can be restored to any second of the last 35 days")
    kms_key: str = setting(
        "",
        "ARN of your KMS key, which encrypts all stored data; empty: keys that AWS owns",
        pattern=r"arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/(mrk-)?[0-9a-f-]{32,36}",
        hint="the ARN of a key, arn:aws:kms:...:key/...",
    )
    retention_days: int = setting(30, "Days for which ended runs, events and the logs of steps are kept", one_of=DAYS)
    log_days: int = setting(30, "Days for which the engine's own logs are kept", one_of=DAYS)

    # --- monitoring ---
    alarms: bool = setting(True, "CloudWatch alarms on lost, late and rejected messages, and on errors")
    alarm_email: str = setting(
        "",
        "Address that receives alarms; AWS sends it a mail to confirm",
        pattern=r"[^@\s]+@[^@\s]+\.[^@\s]+",
        hint="an e-mail address",
    )
    dashboard: bool = setting(True, "A CloudWatch dashboard")
    metrics: bool = setting(True, "Stepwell's own metrics, such as `RunsFailed`; CloudWatch bills each metric")

    # --- permissions ---
    permissions_boundary: str = setting(
        "",
        "ARN of a policy that becomes the permissions boundary of every role, here and in `stepwell push`",
        pattern=r"arn:aws[a-z-]*:iam::(\d{12}|aws):policy/.+",
        hint="the ARN of a policy",
    )

    step_actions: str = setting(
        "",
        "Actions that the boundary of steps' roles allows in addition to those that Stepwell needs, such as"
        " `s3:GetObject,ses:*`; set it if you attach your own policies to these roles",
        pattern=r"(?!(iam|organizations|account):)[a-z0-9-]+:[A-Za-z0-9*]+"
        r"(,(?!(iam|organizations|account):)[a-z0-9-]+:[A-Za-z0-9*]+)*",
        hint="a list of actions of AWS services, separated by commas, without those of iam, organizations and account",
    )

    def __post_init__(self) -> None:
        for problem in _problems(self):
            raise BadSetting(problem)

    @classmethod
    def from_context(cls, read: Callable[[str], Any], names: Mapping[str, Any]) -> Settings:
        """The settings in CDK's context. `read` returns the value of a name, or None; `names`: all names that are set.

        Raises BadSetting.
        """
        refuse_unknown(cls, names)
        values = {field.name: read(field.name) for field in fields(cls)}
        given = {
            field.name: parsed(field, values[field.name]) for field in fields(cls) if values[field.name] is not None
        }
        return cls.of_profile(**given)

    @classmethod
    def of_profile(cls, profile: str = "standard", **given: Any) -> Settings:
        """Settings with the defaults of a profile, overridden by `given`."""
        return cls(profile=profile, **{**PROFILES.get(profile, {}), **given})

    @property
    def warm_units(self) -> tuple[int, int] | None:
        """The reads and writes a second in `warm_throughput`; None if it is not set."""
        reads, _, writes = self.warm_throughput.partition("/")
        return (int(reads), int(writes)) if writes else None

    @property
    def has_containers(self) -> bool:
        return bool(self.vpc)

    @property
    def subnet_ids(self) -> list[str]:
        return _list(self.subnets)

    @property
    def step_network(self) -> tuple[list[str], list[str]]:
        """The ids of the subnets and of the security groups of Lambda steps in a VPC. Empty if they are not set."""
        return _list(self.step_subnets), _list(self.step_security_groups)

    @property
    def step_lambda_arns(self) -> list[str]:
        return _list(self.step_lambdas)

    @property
    def step_action_list(self) -> list[str]:
        return _list(self.step_actions)


def table() -> str:
    """The settings as a table in Markdown."""
    return table_of(Settings)


def _problems(settings: Settings) -> Iterator[str]:
    for field in fields(Settings):
        yield from field_problems(field, getattr(settings, field.name))
    if settings.domain and not settings.certificate:
        yield "domain: it needs a certificate: -c certificate=<ARN in AWS Certificate Manager>"
    if settings.certificate and not settings.domain:
        yield "certificate: it needs a domain: -c domain=<name>"
    if settings.subnets and settings.vpc in ("", "default"):
        yield "subnets: they need the id of their VPC: -c vpc=<id>"
    if bool(settings.step_subnets) != bool(settings.step_security_groups):
        yield "step_subnets, step_security_groups: set both, of one VPC, or neither"
    if settings.step_actions and settings.permissions_boundary:
        yield "step_actions: your own permissions_boundary decides what steps may do; remove one of the two settings"
    if settings.alarm_email and not settings.alarms:
        yield "alarm_email: the alarms are off; set -c alarms=true, or remove the address"
    if any(units < least for units, least in zip(settings.warm_units or (), LEAST_WARM, strict=False)):
        least_warm = "/".join(map(str, LEAST_WARM))
        yield f"warm_throughput: {settings.warm_throughput} is less than {least_warm}, which every table has"


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
