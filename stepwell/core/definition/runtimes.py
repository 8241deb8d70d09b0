"""The models of `runtime`: what executes a step."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from stepwell.core.definition import field_validators
from stepwell.core.definition import schema_rules as rules
from stepwell.core.definition.fields import (
    Command,
    Duration,
    HeaderName,
    HeaderValue,
    Layer,
    Model,
    Name,
    Whole,
    pattern,
)


class Lambda(Model):
    """Runs the step's code; in AWS as a Lambda function. Found by convention without `command` or `handler`."""

    model_config = ConfigDict(json_schema_extra=rules.LAMBDA)

    type: Literal["lambda"]
    command: Command | None = Field(
        default=None, description="The program and its arguments, run in the step's folder."
    )
    handler: Annotated[str, AfterValidator(field_validators.handler), pattern(rules.HANDLER)] | None = Field(
        default=None, description="Module and function of a Lambda handler.", examples=["app.handler"]
    )
    arn: (
        Annotated[str, AfterValidator(field_validators.lambda_arn), pattern(rules.whole(field_validators.LAMBDA_ARN))]
        | None
    ) = Field(
        default=None,
        description="An existing Lambda, which is called as it is; only on AWS.",
        examples=["arn:aws:lambda:eu-central-1:123456789012:function:add-to-crm"],
    )
    memory: Annotated[int, Field(ge=128, le=10_240), Whole] | None = Field(default=None, description="MB of memory.")
    architecture: Literal["x86_64", "arm64"] | None = Field(default=None, description="Of the processor.")
    ephemeral_storage: Annotated[int, Field(ge=512, le=10_240), Whole] | None = Field(
        default=None, description="MB of `/tmp`; 512 if not given. Only on AWS."
    )
    layers: Annotated[list[Layer], Field(max_length=4)] | None = Field(
        default=None,
        description="ARNs of versions of Lambda layers, which are unpacked in `/opt`. Only on AWS.",
        examples=[["arn:aws:lambda:eu-central-1:123456789012:layer:fonts:3"]],
    )
    vpc: Annotated[bool, BeforeValidator(field_validators.network)] | None = Field(
        default=None,
        description="Whether it runs in the environment's network for steps: its settings `step_subnets` and"
        " `step_security_groups`. Only on AWS.",
    )
    tracing: bool | None = Field(
        default=None,
        description="Whether X-Ray traces it; if not given, as the environment's setting `tracing` says. Only on AWS.",
    )


class Docker(Model):
    """Runs a container: of `image`, or of the image that the Dockerfile in the step's folder builds."""

    type: Literal["docker"]
    image: Annotated[str, Field(min_length=1, max_length=512)] | None = Field(
        default=None, description="The image to run."
    )
    entrypoint: Command | None = Field(
        default=None, description="Program and arguments, instead of the image's entrypoint."
    )
    cpu: float | None = Field(default=None, gt=0, le=192, description="Number of processors.")
    memory: Annotated[int, Field(ge=16, le=1_048_576), Whole] | None = Field(default=None, description="MB of memory.")


class Http(Model):
    """Sends the step's input to a web address; its answer is the output."""

    type: Literal["http"]
    url: Annotated[str, Field(max_length=4096), AfterValidator(field_validators.url), pattern(rules.URL)] = Field(
        description="The address that the input is sent to by POST, as in https://example.com/hook."
    )
    headers: dict[HeaderName, HeaderValue] = Field(
        default={}, description="Headers to send with it.", json_schema_extra=rules.keys(field_validators.HEADER)
    )


class Approval(Model):
    """Asks people: nothing is executed, and the step ends with what they decide, or with its timeout (7d)."""

    type: Literal["approval"]
    message: Annotated[str, Field(min_length=1, max_length=2000)] = Field(
        description="What is to be decided, as people read it; {{ CEL }} stands for a value of the run.",
        examples=["Pay {{ data.amount }} EUR to {{ user.email }}?"],
    )
    approvers: Annotated[list[Name], Field(max_length=100)] = Field(
        default=[], description="Who is asked; shown to them, and told with stepwell/approval.requested."
    )
    timeout: Duration | None = Field(default=None, description="How long they have; the same as the step's `timeout`.")
