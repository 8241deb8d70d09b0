"""What a function definition may say, and what is wrong with one that says something else.

One rule: this and `webhook_definition` are the only modules of the core that import pydantic. What is kept and compiled
is the plain data of `Definition.normalised()`; reading it back needs no pydantic.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from stepwell.core.definition import field_validators
from stepwell.core.definition import schema_rules as rules
from stepwell.core.definition.problems import Pointer, Problem, listed, nearest, not_yet
from stepwell.core.definition.semantic_checks import contradictions, doubts
from stepwell.core.definition.suggestions import in_words_with_cures

CUE = "cue"
_ONLY_STEP = {"step-1": {"path": "file://."}}


class DefinitionError(ValueError):
    """The definition is refused; `problems` holds everything that is wrong with it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(problem.message for problem in problems))
        self.problems = problems


def _names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _pattern(pattern: str) -> Any:
    return Field(json_schema_extra={"pattern": pattern})


_WHOLE = BeforeValidator(field_validators.whole)
Id = Annotated[str, AfterValidator(field_validators.identifier), _pattern(rules.whole(field_validators.ID))]
Name = Annotated[str, Field(min_length=1, max_length=256)]
Duration = Annotated[
    str,
    BeforeValidator(field_validators.with_unit),
    AfterValidator(field_validators.duration),
    _pattern(rules.DURATION),
]
Cel = Annotated[str, Field(min_length=1)]
EventPattern = Annotated[
    str,
    Field(min_length=1, max_length=256),
    AfterValidator(field_validators.event_pattern),
    _pattern(rules.EVENT_PATTERN),
]
ExactEvent = Annotated[
    str, Field(min_length=1, max_length=256), AfterValidator(field_validators.exact_event), _pattern(rules.EXACT_EVENT)
]
Argument = Annotated[str, AfterValidator(field_validators.plain), _pattern(rules.PLAIN)]
Command = Annotated[list[Argument], Field(min_length=1)]
Variable = Annotated[str, AfterValidator(field_validators.variable), _pattern(rules.whole(field_validators.VARIABLE))]
Path = Annotated[str, AfterValidator(field_validators.path), _pattern(rules.PATH)]
Layer = Annotated[str, AfterValidator(field_validators.layer_arn), _pattern(rules.whole(field_validators.LAYER_ARN))]
HeaderName = Annotated[
    str, AfterValidator(field_validators.header_name), _pattern(rules.whole(field_validators.HEADER))
]
HeaderValue = Annotated[str, AfterValidator(field_validators.header_value), _pattern(rules.HEADER_VALUE)]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _null_means_not_given(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        known = _names(cls)
        return {key: value for key, value in data.items() if value is not None or key not in known}


def _def(value: object, info: ValidationInfo) -> object:
    return (field_validators.cue if info.data.get("format") == CUE else field_validators.schema)(value)


class EventDefinition(Model):
    """The type of a trigger's event, written where the event is named."""

    model_config = ConfigDict(json_schema_extra=rules.EVENT_DEFINITION)

    format: Literal["json-schema", "cue"] = Field(
        default="json-schema", description="The language of `def`. A type in CUE is accepted, and not checked."
    )
    synced: bool = Field(default=False, description="Whether other tools keep `def` up to date; for those tools only.")
    def_: Annotated[Any, AfterValidator(_def)] = Field(
        alias="def",
        description="A JSON Schema (2020-12), or the file that holds it, as in file://./order.schema.json.",
    )


class Trigger(Model):
    """What starts a run: an event, or a time."""

    model_config = ConfigDict(json_schema_extra=rules.TRIGGER)

    event: EventPattern | None = Field(default=None, description="An event's name, or a prefix that ends in `*`.")
    expression: Cel | None = Field(
        default=None, description="CEL over `event`, `user` and `data`; only true starts a run."
    )
    definition: EventDefinition | None = Field(default=None, description="The type of the event.")
    cron: Annotated[str, Field(min_length=1, max_length=256), _pattern(rules.CRON)] | None = Field(
        default=None,
        description="Five fields: minute, hour, day of month, month, day of week.",
        examples=["0 9 * * mon-fri"],
    )
    timezone: str | None = Field(default=None, description="Of `cron`; UTC if not given.", examples=["Europe/Berlin"])


class Lambda(Model):
    """Runs the step's code; in AWS as a Lambda function. Found by convention without `command` or `handler`."""

    model_config = ConfigDict(json_schema_extra=rules.LAMBDA)

    type: Literal["lambda"]
    command: Command | None = Field(
        default=None, description="The program and its arguments, run in the step's folder."
    )
    handler: Annotated[str, AfterValidator(field_validators.handler), _pattern(rules.HANDLER)] | None = Field(
        default=None, description="Module and function of a Lambda handler.", examples=["app.handler"]
    )
    arn: (
        Annotated[str, AfterValidator(field_validators.lambda_arn), _pattern(rules.whole(field_validators.LAMBDA_ARN))]
        | None
    ) = Field(
        default=None,
        description="An existing Lambda, which is called as it is; only on AWS.",
        examples=["arn:aws:lambda:eu-central-1:123456789012:function:add-to-crm"],
    )
    memory: Annotated[int, Field(ge=128, le=10_240), _WHOLE] | None = Field(default=None, description="MB of memory.")
    architecture: Literal["x86_64", "arm64"] | None = Field(default=None, description="Of the processor.")
    ephemeral_storage: Annotated[int, Field(ge=512, le=10_240), _WHOLE] | None = Field(
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
    memory: Annotated[int, Field(ge=16, le=1_048_576), _WHOLE] | None = Field(default=None, description="MB of memory.")


class Http(Model):
    """Sends the step's input to a web address; its answer is the output."""

    type: Literal["http"]
    url: Annotated[str, Field(max_length=4096), AfterValidator(field_validators.url), _pattern(rules.URL)] = Field(
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


class Backoff(Model):
    """How long to wait before a retry: `initial`, then `factor` times longer each time, up to `max`."""

    initial: Duration = Field(default="10s", description="Before the first retry.")
    factor: float = Field(default=2.0, ge=1, le=1000, description="How much longer each delay is than the one before.")
    max: Duration = Field(default="1h", description="The longest delay.")
    jitter: float = Field(default=0.15, ge=0, le=1, description="The random share of a delay; 0.15 = +-15%.")


class Retries(Model):
    """What happens when an attempt fails in a way that another try could mend."""

    attempts: Annotated[int, Field(ge=0, le=20), _WHOLE] = Field(
        default=4, description="Number of retries after the first try."
    )
    backoff: Backoff = Field(default=Backoff(), description="The delays before the retries.")


class Async(Model):
    """A pause until an event comes."""

    event: ExactEvent = Field(description="The exact name of the event to wait for.")
    match: Cel | None = Field(
        default=None,
        description="CEL over `event`, `steps`, `errors`, `response` and `async`, the incoming event.",
        examples=["async.data.order_id == event.data.order_id"],
    )
    ttl: Duration = Field(description="How long to wait for it, as in 2d; at most 366 days.")
    on_timeout: bool = Field(default=False, alias="onTimeout", description="Satisfied only if none came in time.")


class Edge(Model):
    """What this step comes after, and under which conditions."""

    model_config = ConfigDict(json_schema_extra=rules.EDGE)

    step: str = Field(description="The id of the step before, or `$trigger`.")
    on: Literal["success", "failure", "always"] = Field(default="success", description="How that step must have ended.")
    if_: Cel | None = Field(default=None, alias="if", description="CEL, evaluated once, when that step ends.")
    wait: Duration | None = Field(default=None, description="A delay before going on, as in 1h30m; at most 366 days.")
    async_: Async | None = Field(default=None, alias="async", description="A pause until an event comes.")


class Step(Model):
    """One program of the function."""

    model_config = ConfigDict(json_schema_extra=rules.STEP)

    id: str = Field(
        default="", description="The same as its key.", json_schema_extra={"pattern": rules.whole(field_validators.ID)}
    )
    name: Name = Field(
        default_factory=lambda fields: fields.get("id", ""), description="For people; the id if not given."
    )
    path: Path = Field(default="", description="The step's folder or file, as in file://./steps/send-sms.")
    runtime: Annotated[Lambda | Docker | Http | Approval, Field(discriminator="type")] = Field(
        default=Lambda(type="lambda"), description="What executes the step."
    )
    after: list[Edge] = Field(default=[], description="What this step comes after; empty: it starts with the run.")
    join: Literal["merge", "all", "first"] = Field(
        default="merge",
        description="`merge`: runs once all edges are settled and one is satisfied; `all`: if all are; "
        "`first`: as soon as one is.",
    )
    retries: Retries = Field(default=Retries(), description="What happens when an attempt fails.")
    timeout: Duration = Field(default="15m", description="For each attempt; 7d for an approval if not given.")
    env: dict[Variable, Argument] = Field(
        default={}, description="Environment variables.", json_schema_extra=rules.keys(field_validators.VARIABLE)
    )
    secrets: list[Variable] = Field(default=[], description="Names of secrets, given as environment variables.")


class Cancel(Model):
    """An event that ends the function's running runs."""

    event: ExactEvent = Field(description="The exact name of the event.")
    if_: Cel | None = Field(
        default=None,
        alias="if",
        description="CEL over the run's `event`, `user` and `data`, and `async`, the incoming event; true cancels.",
        examples=["async.data.order_id == event.data.order_id"],
    )
    timeout: Duration | None = Field(
        default=None, description="For how long after the run was made; if absent, to the run's end."
    )


class Definition(Model):
    """A Stepwell function: which events start it, and which steps run in which order."""

    schema_: str | None = Field(default=None, alias="$schema", description="The address of this schema, for editors.")
    id: Id = Field(description="The function's id: a-z, 0-9 and -, at most 64 characters.")
    name: Name = Field(default_factory=lambda fields: fields.get("id", ""), description="For people; the id if absent.")
    triggers: list[Trigger] = Field(min_length=1, description="What starts a run: events, or times.")
    steps: dict[Id, Step] = Field(
        default={},
        max_length=1000,
        description="By id. None given: the folder is one.",
        json_schema_extra=rules.keys(field_validators.ID),
    )
    cancel: list[Cancel] = Field(default=[], max_length=10, description="Events that end the function's running runs.")
    idempotency: Cel | None = Field(
        default=None,
        description="CEL over `event`, `user` and `data`: one run for each of its values in 24 hours.",
        examples=["event.data.order_id"],
    )

    def normalised(self) -> dict[str, Any]:
        """Plain JSON data with every default filled in: what is stored, hashed and compiled to a plan.

        Absent stays what has no default (`if`, `match`, `memory`...). It can be parsed again, to an equal definition.
        """
        data = self.model_dump(by_alias=True, exclude_none=True, exclude={"schema_"})
        for trigger in data["triggers"]:
            if "cron" in trigger:
                trigger.setdefault("timezone", "UTC")
            if trigger.get("definition", {}).get("format") == CUE:  # which nobody reads
                del trigger["definition"]
        if not data["cancel"]:  # so that versions made before there was such a field keep their hash
            del data["cancel"]
        for step in data["steps"].values():
            step["after"] = step["after"] or [{"step": "$trigger"}]
            for edge in step["after"]:
                if edge["step"] == "$trigger":
                    edge.pop("on", None)
        return data

    def warnings(self) -> list[Problem]:
        """What is allowed, and probably not meant."""
        return [*self._types_in_cue(), *doubts(self.normalised())]

    def _types_in_cue(self) -> Iterator[Problem]:
        for i, trigger in enumerate(self.triggers):
            if trigger.definition is not None and trigger.definition.format == CUE:
                message = (
                    f"definition: the type of {trigger.event} is written in CUE, which is not checked, so its events"
                    " are accepted whatever they hold; write it as a JSON Schema with the format json-schema"
                    " (`stepwell types infer` makes one of events), or remove `definition`"
                )
                yield Problem(("triggers", i, "definition"), message)


# --- reading ---------------------------------------------------------------------------------------------------------


def parse_definition(raw: object, written: Mapping[Pointer, str] | None = None) -> Definition:
    """Read a definition from plain JSON data. `written`: how values that are no text are written, where that is known.
    Raises DefinitionError with all that is wrong, in reading order."""
    if not isinstance(raw, dict):
        raise DefinitionError([Problem((), "the definition must be an object, with an id, triggers and steps")])
    data = _completed(raw)
    definition, errors = _validated(data)
    problems = [problem for problem in map(_problem, errors) if isinstance(problem, Problem)]
    plain = [(_pointer(error), error) for error in errors if _problem(error) is None]
    problems += in_words_with_cures(data, plain, written or {}, _wrong_places)
    problems += contradictions(data)
    if problems or definition is None:
        raise DefinitionError(problems)
    return definition


def _validated(data: Any) -> tuple[Definition | None, list[Any]]:
    """The definition, or what pydantic has against it."""
    try:
        return Definition.model_validate(data), []
    except ValidationError as refused:
        errors = refused.errors(include_url=False)
        return None, [error for error in errors if error["type"] != "default_factory_not_called"]


def _wrong_places(data: Any) -> set[Pointer]:
    return {*map(_pointer, _validated(data)[1]), *(problem.pointer for problem in contradictions(data))}


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a definition, for editors: as strict as reading one, where a schema can say it."""
    return rules.of_model(Definition.model_json_schema(by_alias=True), "Stepwell function")


def _completed(raw: dict[Any, Any]) -> dict[Any, Any]:
    """The one step that a definition without steps has, every step's id, and how long people have for an approval."""
    steps = _ONLY_STEP if raw.get("steps") in (None, {}) else raw["steps"]
    if not isinstance(steps, dict):
        return raw
    return {
        **raw,
        "steps": {
            key: {**step, "id": key if step.get("id") is None else step["id"], **_of_approval(step)}
            if isinstance(step, dict)
            else step
            for key, step in steps.items()
        },
    }


def _of_approval(step: dict[Any, Any]) -> dict[str, Any]:
    """The defaults that are an approval's own."""
    runtime = step.get("runtime")
    if not isinstance(runtime, dict) or runtime.get("type") != "approval":
        return {}
    own = {"timeout": runtime.get("timeout") or "7d", "retries": {"attempts": 0}}
    if not _is_duration(own["timeout"]):
        del own["timeout"]  # it is refused where it stands, and not here too
    return {name: value for name, value in own.items() if step.get(name) is None}


def _is_duration(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(field_validators.duration(value))
    except ValueError:
        return False


_RUNTIMES: dict[str, type[Model]] = {"lambda": Lambda, "docker": Docker, "http": Http, "approval": Approval}
_INSIDE_STEP: dict[str, type[Model]] = {"retries": Retries, "backoff": Backoff, "after": Edge, "async": Async}


def _model_at(location: Pointer) -> type[BaseModel]:
    """The model whose field is at `location`."""
    if location[0] not in ("triggers", "steps", "cancel") or len(location) < 3:
        return Definition
    if location[0] == "cancel":
        return Cancel
    if location[0] == "triggers":
        return EventDefinition if location[2:3] == ("definition",) and len(location) > 3 else Trigger
    inside = [part for part in location[2:-1] if isinstance(part, str)]
    if inside[:1] == ["runtime"]:
        return _RUNTIMES[inside[1]]
    return _INSIDE_STEP[inside[-1]] if inside else Step


def _pointer(error: Any) -> Pointer:
    """Where the value stands that an error is about."""
    location: Pointer = error["loc"]
    pointer = tuple(part for part in location if part != "[key]")
    if len(location) > 3 and location[0] == "steps" and location[2] == "runtime":
        pointer = location[:3] + pointer[4:]  # without the tag that pydantic adds for the runtime's type
    return pointer


def _problem(error: Any) -> Problem | None:
    """The problem, if it is about what fields there are; None if it is about a value."""
    location, pointer = error["loc"], _pointer(error)
    match error["type"]:
        case "extra_forbidden":
            return Problem(pointer, _unknown(str(location[-1]), _model_at(location)))
        case "missing":
            field = location[-1]
            about = next(f.description for n, f in _model_at(location).model_fields.items() if (f.alias or n) == field)
            return Problem(pointer, f"`{field}` is missing; add it: {about}")
        case "union_tag_not_found":
            return Problem(pointer, "runtime has no `type`; add one: lambda, docker, http or approval")
        case "union_tag_invalid":
            return Problem((*pointer, "type"), _unknown_runtime(str(error["ctx"]["tag"])))
    return None


def _unknown(field: str, model: type[BaseModel]) -> str:
    others = [kind for kind, other in _RUNTIMES.items() if field in _names(other)]
    if others and model in _RUNTIMES.values():
        return f"`{field}` is a field of runtime {' and '.join(others)}; this runtime knows {listed(_names(model))}"
    return f"unknown field `{field[:100]}`; {nearest(field, _names(model))}"


def _unknown_runtime(name: str) -> str:
    if name == "wasm":
        return not_yet("runtime wasm", "use lambda or docker")
    return f"unknown runtime {name[:100]!r}; {nearest(name, _RUNTIMES)}"
