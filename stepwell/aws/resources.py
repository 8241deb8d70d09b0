"""The names and ARNs of an environment's resources. Infra, Lambdas, commands and tests all read this list.

`infra` writes it into an environment variable of each Lambda, and into an SSM parameter that the commands read.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from typing import Any

VARIABLE = "STEPWELL_RESOURCES"


class NoEnvironment(Exception):
    """The account and region have no environment of this name; the message contains how to create one."""


@dataclass(frozen=True, slots=True)
class Resources:
    env: str
    region: str
    account: str
    table: str
    bus: str
    events_queue: str  # URL
    events_queue_arn: str
    outcomes_queue: str  # URL
    outcomes_queue_arn: str
    bucket: str  # S3: code of steps, and inputs and reports of containers
    step_http: str  # the Lambda that runs `http` steps
    api_url: str = ""
    ingest: str = "bus"  # or `direct`: `ingest` sends events to the queue without the bus
    layers: dict[str, str] = field(default_factory=dict)  # ARN of the adapter's layer, by architecture
    cluster: str = ""
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    execution_role: str = ""  # of ECS tasks
    adapter_images: dict[str, str] = field(default_factory=dict)  # by architecture
    capacity: str = "FARGATE"  # of containers; or FARGATE_SPOT
    repository: str = ""  # ECR, for images that push builds
    step_subnets: tuple[str, ...] = ()  # of Lambda steps with `vpc: true`
    step_security_groups: tuple[str, ...] = ()
    tracing: bool = False  # default for Lambda steps that do not set it
    permissions_boundary: str = ""  # ARN; of every role, if the account requires one
    step_boundary: str = ""  # ARN; of roles that push creates, if `permissions_boundary` is empty; made by the stack
    kms_key: str = ""  # empty: AWS-owned keys
    retention_days: int = 30
    event_age_s: int = 3600  # how long an invocation may wait in Lambda's queue
    step_concurrency: int = 0  # reserved concurrency of each step's Lambda; 0: none
    cache_s: float = 5.0  # how old a Lambda's cached functions may be
    keys_cache_s: float = 60.0  # how old the cached API keys may be
    signing_keys_cache_s: float = 300.0  # how old the cached signing keys may be
    signing_keys_again_s: float = 5.0  # shortest time between two reads because of an unknown signing key
    clock_skew_ms: int = 2000  # deadlines fire this much later, because clocks differ

    @property
    def partition(self) -> str:
        """The partition of the account's ARNs: `aws`, `aws-cn` or `aws-us-gov`."""
        return self.outcomes_queue_arn.split(":")[1]

    @property
    def role_boundary(self) -> str:
        """The ARN of the permissions boundary of roles that push creates.

        Empty in an environment that an older version of Stepwell deployed.
        """
        return self.permissions_boundary or self.step_boundary

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Resources:
        """The resources in a JSON text. Unknown names are ignored: the deployed version may be newer than this one."""
        known = {f.name for f in fields(cls)}
        data: dict[str, Any] = {name: value for name, value in json.loads(text).items() if name in known}
        for name in ("subnets", "security_groups", "step_subnets", "step_security_groups"):
            data[name] = tuple(data.get(name, ()))
        return cls(**data)

    @classmethod
    def from_environment(cls) -> Resources:
        """The resources in the environment variable of the current Lambda."""
        return cls.from_json(os.environ[VARIABLE])

    @classmethod
    def of_environment(cls, env: str) -> Resources:
        """The resources of a deployed environment, read from SSM. Raises NoEnvironment."""
        from stepwell.aws.clients import client

        ssm = client("ssm")
        try:
            found = ssm.get_parameter(Name=parameter(env))
        except ssm.exceptions.ParameterNotFound:
            region = ssm.meta.region_name
            raise NoEnvironment(
                f"there is no environment {env!r} in {region}; create it with `cdk deploy -c env={env}`, or set"
                " AWS_REGION and AWS_PROFILE to choose another region or account"
            ) from None
        return cls.from_json(found["Parameter"]["Value"])


def parameter(env: str) -> str:
    """The SSM parameter that holds an environment's resources."""
    return f"/stepwell/{env}/resources"
