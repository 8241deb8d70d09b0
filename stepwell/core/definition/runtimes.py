"""The models of `runtime`, which defines what executes a step."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from stepwell.core.definition import field_validators
from stepwell.core.definition import schema_rules as rules
from stepwell.core.definition.fields import (
    Address,
    Cel,
    Command,
    Duration,
    HeaderName,
    HeaderValue,
    Layer,
    Model,
    Name,
    Queue,
    SentEvent,
    TaskName,
    Whole,
    pattern,
)


class Lambda(Model):
    """Runs the step's code; on AWS as a Lambda function. Without `command` or `handler`, a program such as `main.py`,
    `index.js` or `main.sh` is run."""

    model_config = ConfigDict(json_schema_extra=rules.LAMBDA)

    type: Literal["lambda"]
    command: Command | None = Field(
        default=None, description="The program and its arguments, run in the step's folder."
    )
    handler: Annotated[str, AfterValidator(field_validators.handler), pattern(rules.HANDLER)] | None = Field(
        default=None, description="The module and function of a Lambda handler.", examples=["app.handler"]
    )
    arn: (
        Annotated[str, AfterValidator(field_validators.lambda_arn), pattern(rules.whole(field_validators.LAMBDA_ARN))]
        | None
    ) = Field(
        default=None,
        description="The ARN of an existing Lambda function to call. Only on AWS.",
        examples=["arn:aws:lambda:eu-central-1:123456789012:function:add-to-crm"],
    )
    memory: Annotated[int, Field(ge=128, le=10_240), Whole] | None = Field(default=None, description="Memory in MB.")
    architecture: Literal["x86_64", "arm64"] | None = Field(default=None, description="The processor architecture.")
    ephemeral_storage: Annotated[int, Field(ge=512, le=10_240), Whole] | None = Field(
        default=None, description="The size of `/tmp` in MB. Default: 512. Only on AWS."
    )
    layers: Annotated[list[Layer], Field(max_length=4)] | None = Field(
        default=None,
        description="The ARNs of Lambda layer versions, which are unpacked in `/opt`. Only on AWS.",
        examples=[["arn:aws:lambda:eu-central-1:123456789012:layer:fonts:3"]],
    )
    vpc: Annotated[bool, BeforeValidator(field_validators.network)] | None = Field(
        default=None,
        description="Whether the step runs in the environment's VPC, which the settings `step_subnets` and"
        " `step_security_groups` define. Only on AWS.",
    )
    tracing: bool | None = Field(
        default=None,
        description="Whether X-Ray traces the step. Default: the environment's setting `tracing`. Only on AWS.",
    )


class Docker(Model):
    """Runs a container from `image`, or from the image that is built with the Dockerfile in the step's folder."""

    type: Literal["docker"]
    image: Annotated[str, Field(min_length=1, max_length=512)] | None = Field(
        default=None, description="The image to run."
    )
    entrypoint: Command | None = Field(
        default=None, description="The program and its arguments, in place of the image's entrypoint."
    )
    cpu: float | None = Field(default=None, gt=0, le=192, description="The number of processors.")
    memory: Annotated[int, Field(ge=16, le=1_048_576), Whole] | None = Field(default=None, description="Memory in MB.")


class Http(Model):
    """Sends the step's input to a web address with POST. The response is the output."""

    type: Literal["http"]
    url: Annotated[str, Field(max_length=4096), AfterValidator(field_validators.url), pattern(rules.URL)] = Field(
        description="The address that receives the input, as in https://example.com/hook."
    )
    headers: dict[HeaderName, HeaderValue] = Field(
        default={}, description="Headers of the request.", json_schema_extra=rules.keys(field_validators.HEADER)
    )


class Celery(Model):
    """Sends a task to an existing Celery app, whose workers run it. The task's result is the output. Not on AWS."""

    type: Literal["celery"]
    task: TaskName = Field(description="The name of the task.", examples=["shop.tasks.send_email"])
    queue: TaskName = Field(default="celery", description="The queue that the app's workers read.")
    broker: Address = Field(
        description="The app's `broker_url`. ${NAME} takes the value of a variable or secret.",
        examples=["redis://localhost:6379/0", "${CELERY_BROKER}"],
    )
    backend: Address = Field(
        default="rpc://",
        description="The app's `result_backend`. ${NAME} takes the value of a variable or secret.",
        examples=["redis://localhost:6379/1"],
    )
    args: Cel | None = Field(
        default=None,
        description="A CEL expression over `event`, `user`, `data`, `steps`, `errors` and `async`: the list of the"
        " task's positional arguments. Default: one argument, the step's input; none if there are `kwargs`.",
        examples=["[data.address, 'Welcome']"],
    )
    kwargs: Cel | None = Field(
        default=None,
        description="A CEL expression over the same variables: the map of the task's keyword arguments.",
        examples=["{'address': data.address}"],
    )


class Wasm(Model):
    """Runs a WebAssembly module (a WASI preview 1 command) in a sandbox. It has no network, and no files besides the
    step's code, which is read-only, and TMPDIR."""

    type: Literal["wasm"]
    module: Annotated[str, AfterValidator(field_validators.wasm_module), pattern(rules.WASM_MODULE)] | None = Field(
        default=None,
        description="The module in the step's folder. Default: `main.wasm`, or the only `.wasm` file.",
        examples=["build/resize.wasm"],
    )
    memory: Annotated[int, Field(ge=1, le=4096), Whole] | None = Field(
        default=None, description="The maximum memory of the module in MB. Default: 256."
    )
    fuel: Annotated[int, Field(ge=1, le=9_007_199_254_740_991), Whole] | None = Field(
        default=None,
        description="The maximum number of instructions of an attempt, roughly. Default: no limit besides the timeout.",
    )
    architecture: Literal["x86_64", "arm64"] | None = Field(
        default=None, description="The processor architecture of the step's Lambda. Default: x86_64. Only on AWS."
    )


class Faktory(Model):
    """Keeps a job for workers of Faktory, which fetch it from the server's own Faktory port. Not on AWS."""

    type: Literal["faktory"]
    jobtype: TaskName = Field(
        description="The type under which workers have registered the job.", examples=["SendEmail"]
    )
    queue: Queue = Field(default="default", description="The queue from which workers fetch the job.")
    args: Cel | None = Field(
        default=None,
        description="A CEL expression over `event`, `user`, `data`, `steps`, `errors` and `async`: the list of the"
        " job's arguments. Default: one argument, the step's input.",
        examples=["data.args"],
    )


class Emit(Model):
    """Sends an event. Nothing is executed: the engine sends it once, and the output is `{"id": "<the event's id>"}`."""

    type: Literal["emit"]
    event: SentEvent = Field(description="The name of the event.", examples=["order/packed"])
    data: Cel | None = Field(
        default=None,
        description="A CEL expression over `event`, `user`, `data`, `steps`, `errors` and `async`: the map that becomes"
        " the event's `data`. Default: `{}`.",
        examples=["{'order': data.order, 'boxes': steps.pack.boxes}"],
    )
    user: Cel | None = Field(
        default=None,
        description="A CEL expression over the same variables: the event's `user`, as a map, or the user's `id` as a"
        " text. Default: the `user` of the run's event.",
        examples=["data.customer_id"],
    )
    ts: Cel | None = Field(
        default=None,
        description="A CEL expression over the same variables: the event's `ts`, as a timestamp, an RFC 3339 text or"
        " milliseconds. Default: the time of sending.",
        examples=["timestamp(data.packed_at)"],
    )


class Approval(Model):
    """Asks people to approve. Nothing is executed: the step ends with their decision, or with the timeout (7d)."""

    type: Literal["approval"]
    message: Annotated[str, Field(min_length=1, max_length=2000)] = Field(
        description="The question that people read. {{ CEL }} inserts a value of the run.",
        examples=["Pay {{ data.amount }} EUR to {{ user.email }}?"],
    )
    approvers: Annotated[list[Name], Field(max_length=100)] = Field(
        default=[],
        description="The people who are asked. Shown with the question, and sent in `stepwell/approval.requested`.",
    )
    timeout: Duration | None = Field(
        default=None, description="The time for a decision. The same as `timeout` of the step."
    )
