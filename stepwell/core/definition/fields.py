"""The base class of the models, and the types of fields. Each type has a validator and a pattern for JSON Schema."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from stepwell.core.definition import field_validators
from stepwell.core.definition import schema_rules as rules


def pattern(text: str) -> Any:
    """The pattern of a field in the JSON Schema."""
    return Field(json_schema_extra={"pattern": text})


Whole = BeforeValidator(field_validators.whole)
Id = Annotated[str, AfterValidator(field_validators.identifier), pattern(rules.whole(field_validators.ID))]
Name = Annotated[str, Field(min_length=1, max_length=256)]
Duration = Annotated[
    str,
    BeforeValidator(field_validators.with_unit),
    AfterValidator(field_validators.duration),
    pattern(rules.DURATION),
]
Cel = Annotated[str, Field(min_length=1)]
EventPattern = Annotated[
    str,
    Field(min_length=1, max_length=256),
    AfterValidator(field_validators.event_pattern),
    pattern(rules.EVENT_PATTERN),
]
ExactEvent = Annotated[
    str, Field(min_length=1, max_length=256), AfterValidator(field_validators.exact_event), pattern(rules.EXACT_EVENT)
]
SentEvent = Annotated[
    str, Field(min_length=1, max_length=256), AfterValidator(field_validators.sent_event), pattern(rules.SENT_EVENT)
]
Argument = Annotated[str, AfterValidator(field_validators.plain), pattern(rules.PLAIN)]
Command = Annotated[list[Argument], Field(min_length=1)]
Variable = Annotated[str, AfterValidator(field_validators.variable), pattern(rules.whole(field_validators.VARIABLE))]
Path = Annotated[str, AfterValidator(field_validators.path), pattern(rules.PATH)]
Layer = Annotated[str, AfterValidator(field_validators.layer_arn), pattern(rules.whole(field_validators.LAYER_ARN))]
Address = Annotated[str, Field(max_length=4096), AfterValidator(field_validators.address), pattern(rules.ADDRESS)]
TaskName = Annotated[
    str, Field(min_length=1, max_length=255), AfterValidator(field_validators.one_line), pattern(rules.ONE_LINE)
]
Queue = Annotated[
    str, Field(max_length=255), AfterValidator(field_validators.queue), pattern(rules.whole(field_validators.QUEUE))
]
HeaderName = Annotated[str, AfterValidator(field_validators.header_name), pattern(rules.whole(field_validators.HEADER))]
HeaderValue = Annotated[str, AfterValidator(field_validators.header_value), pattern(rules.HEADER_VALUE)]


def names_of(model: type[BaseModel]) -> list[str]:
    """The names of the model's fields, as users write them."""
    return [field.alias or name for name, field in model.model_fields.items()]


class Model(BaseModel):
    """Refuses unknown fields, and converts no types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _null_means_not_given(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        known = names_of(cls)
        return {key: value for key, value in data.items() if value is not None or key not in known}
