"""Names of everything that one environment consists of: the one list that infra, Lambdas, commands and tests read.

`infra` writes it into every Lambda's environment and into an SSM parameter, from which the commands read it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from typing import Any

VARIABLE = "STEPWELL_RESOURCES"


class NoEnvironment(Exception):
    """There is no environment of this name in the account and region; the message says how to make one."""


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
    bucket: str  # code of steps, and inputs and reports of containers
    step_http: str  # the Lambda that runs `http` steps
    api_url: str = ""
    ingest: str = "bus"  # or `direct`: events go to the queue without the bus
    layers: dict[str, str] = field(default_factory=dict)  # ARN of the adapter's layer by architecture
    cluster: str = ""
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    execution_role: str = ""  # of ECS tasks
    adapter_images: dict[str, str] = field(default_factory=dict)  # by architecture
    capacity: str = "FARGATE"  # of containers; or FARGATE_SPOT
    repository: str = ""  # ECR, for images that push builds
    step_subnets: tuple[str, ...] = ()  # of Lambda steps with `vpc: true`
    step_security_groups: tuple[str, ...] = ()
    tracing: bool = False  # of Lambda steps that do not say
    permissions_boundary: str = ""  # of every role, if the account has such a rule
    step_boundary: str = ""  # of the roles that push makes, if there is no other; made by the stack
    kms_key: str = ""  # empty: AWS-owned keys
    retention_days: int = 30
    event_age_s: int = 3600  # how long an invocation may wait in Lambda's queue
    step_concurrency: int = 0  # instances that push reserves for each step's Lambda, and their limit; 0: none
    cache_s: float = 5.0  # how old a Lambda's view of functions may be
    keys_cache_s: float = 60.0  # how old its view of keys may be
    signing_keys_cache_s: float = 300.0  # how old its view of the signing keys may be
    signing_keys_again_s: float = 5.0  # how often it looks for one that it does not know
    clock_skew_ms: int = 2000  # deadlines fire this much later, since clocks differ

    @property
    def role_boundary(self) -> str:
        """The ARN of the policy that bounds the roles that push makes; empty in an environment of an older Stepwell."""
        return self.permissions_boundary or self.step_boundary

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Resources:
        """Unknown names are left out: what is deployed may be newer than what reads it."""
        known = {f.name for f in fields(cls)}
        data: dict[str, Any] = {name: value for name, value in json.loads(text).items() if name in known}
        for name in ("subnets", "security_groups", "step_subnets", "step_security_groups"):
            data[name] = tuple(data.get(name, ()))
        return cls(**data)

    @classmethod
    def from_environment(cls) -> Resources:
        """Those of the Lambda that this runs in."""
        return cls.from_json(os.environ[VARIABLE])

    @classmethod
    def of_environment(cls, env: str) -> Resources:
        """Those of a deployed environment. Raises NoEnvironment."""
        from stepwell.aws.clients import client

        ssm = client("ssm")
        try:
            found = ssm.get_parameter(Name=parameter(env))
        except ssm.exceptions.ParameterNotFound:
            where = ssm.meta.region_name
            raise NoEnvironment(
                f"there is no environment {env!r} in {where}; `cdk deploy -c env={env}` makes it, AWS_REGION and"
                " AWS_PROFILE choose where to look"
            ) from None
        return cls.from_json(found["Parameter"]["Value"])


def parameter(env: str) -> str:
    """The SSM parameter that holds an environment's resources."""
    return f"/stepwell/{env}/resources"
