"""What a single value of a definition may be: each function returns the text it was given, or raises ValueError.

One rule: a message says what is expected, with an example, and need not name the field.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from stepwell.core.duration import LONGEST_MS, meant_duration, parse_duration

ID = r"^[a-z0-9][a-z0-9-]{0,63}$"
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
HANDLER = r"^[A-Za-z0-9_][A-Za-z0-9_/.-]*\.[A-Za-z_$][A-Za-z0-9_$]*$"
LAMBDA_ARN = r"^arn:aws[a-z-]*:lambda:[a-z0-9-]+:[0-9]{12}:function:[A-Za-z0-9_-]+(:[A-Za-z0-9_$-]+)?$"
LAYER_ARN = r"^arn:aws[a-z-]*:lambda:[a-z0-9-]+:[0-9]{12}:layer:[A-Za-z0-9_-]+:[0-9]+$"
HEADER = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"


def identifier(text: str) -> str:
    if not re.fullmatch(ID, text):
        raise ValueError(
            "an id has 1 to 64 characters, a-z, 0-9 and -, and does not begin with -; rename it, as in send-welcome"
        )
    return text


def plain(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character, which no program can be given; remove it")
    return text


def duration(text: str) -> str:
    milliseconds = parse_duration(text)
    if milliseconds <= 0:
        raise ValueError(f"{text!r} is no time at all; write one like 10s, or leave it out")
    if milliseconds > LONGEST_MS:
        raise ValueError(f'{text!r} is more than 366 days, the longest there is; write "366d"')
    return text


def with_unit(value: object) -> object:
    """Refuses a number where a duration should be, and says how it is written if it means seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    meant = meant_duration(f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value))
    cure = f'write "{meant}" for seconds' if meant else "write one like 10s, 1h30m, 3d or 2w"
    raise ValueError(f"must be text with a unit, not a number: {cure}")


def whole(value: object) -> object:
    """In JSON, 3.0 is a whole number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _event_name(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("an event's name has no control characters, and no spaces at its ends")
    return text


def event_pattern(text: str) -> str:
    if "*" in text[:-1]:
        raise ValueError(f"{text!r} has a `*` that is not its end; only a prefix may stand before one, as in user/*")
    if text.endswith("*") and text.startswith("stepwell/"):
        raise ValueError(f"{text!r} would start nothing: wildcards never match stepwell/... events; name each exactly")
    return _event_name(text)


def exact_event(text: str) -> str:
    if "*" in text:
        raise ValueError(f"{text!r} has a wildcard, and a wait is for one name; write the event's exact name")
    return _event_name(text)


def path(text: str) -> str:
    if not text:
        return text  # a step that needs no code
    if not text.startswith("file://"):
        raise ValueError(f"{text[:100]!r} must begin with file://, as in file://./steps/send-sms")
    path = plain(text).removeprefix("file://")
    if path.startswith("/"):
        raise ValueError("is absolute; write it relative to the definition, as in file://./steps/send-sms")
    depth = 0
    for part in path.split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        if depth < 0:
            raise ValueError("leads out of the function's folder; move the step's code into it")
    return text


def schema(value: object) -> object:
    """A JSON Schema that stands here, or the path of its file."""
    if isinstance(value, str):
        if path(value) == "":
            raise ValueError("is empty; write the schema, or its file as in file://./order.schema.json")
        if value.endswith(".cue"):
            raise ValueError('is a file in CUE, which is accepted and not checked; say so: write "format": "cue"')
        return value
    if not isinstance(value, dict):
        raise ValueError('must be a JSON Schema such as {"type": "object"}, or its file as in file://./x.schema.json')
    return value


def cue(value: object) -> object:
    """A type in CUE, or the path of its file."""
    if not isinstance(value, str) or not value:
        raise ValueError("must be a type in CUE, as text, or its file as in file://./events/order.cue")
    return value


def variable(text: str) -> str:
    if not re.fullmatch(VARIABLE, text):
        raise ValueError("the name of a variable has letters, digits and _ only, and does not begin with a digit")
    return text


def handler(text: str) -> str:
    if not re.fullmatch(HANDLER, text) or ".." in text or "//" in text:
        raise ValueError(f"{text!r} must be a module and its function, as in app.handler or src/app.handler")
    return text


def lambda_arn(text: str) -> str:
    if not re.fullmatch(LAMBDA_ARN, text):
        raise ValueError(f"{text[:200]!r} is no ARN of a Lambda, as in arn:aws:lambda:REGION:ACCOUNT:function:NAME")
    return text


def layer_arn(text: str) -> str:
    if not re.fullmatch(LAYER_ARN, text):
        raise ValueError(
            f"{text[:200]!r} is no ARN of a layer's version, as in arn:aws:lambda:REGION:ACCOUNT:layer:NAME:VERSION"
        )
    return text


def network(value: object) -> object:
    """Refuses ids of a network: a definition runs in several environments, and each has a network of its own."""
    if isinstance(value, dict | list):
        raise ValueError(
            "must be true or false: which subnets and security groups these are differs between environments, so the"
            " environment says it: `cdk deploy -c step_subnets=subnet-... -c step_security_groups=sg-...`"
        )
    return value


def url(text: str) -> str:
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not text.isprintable() or " " in text:
        raise ValueError(f"{text[:100]!r} must be an address such as https://example.com/hook")
    return text


def header_name(text: str) -> str:
    if not re.fullmatch(HEADER, text):
        raise ValueError("the name of a header has letters, digits and - only, as in Authorization")
    return text


def header_value(text: str) -> str:
    if not text.isprintable() or not text.isascii():
        raise ValueError("the value of a header is one line of ASCII characters")
    return text
