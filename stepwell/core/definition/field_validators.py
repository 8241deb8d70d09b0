"""Validators of single values in a definition. Each returns the value unchanged, or raises ValueError.

The message states what is expected and gives an example. It does not name the field: the caller adds the name.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from stepwell.core.duration import LONGEST_MS, meant_duration, parse_duration

ID = r"^[a-z0-9][a-z0-9-]{0,63}$"
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
HANDLER = r"^[A-Za-z0-9_][A-Za-z0-9_/.-]*\.[A-Za-z_$][A-Za-z0-9_$]*$"
WASM_MODULE = r"^[A-Za-z0-9_][A-Za-z0-9_/. +@-]*\.wasm$"
LAMBDA_ARN = r"^arn:aws[a-z-]*:lambda:[a-z0-9-]+:[0-9]{12}:function:[A-Za-z0-9_-]+(:[A-Za-z0-9_$-]+)?$"
LAYER_ARN = r"^arn:aws[a-z-]*:lambda:[a-z0-9-]+:[0-9]{12}:layer:[A-Za-z0-9_-]+:[0-9]+$"
ADDRESS = r"^([A-Za-z][A-Za-z0-9+.-]*://|\$\{[A-Za-z_][A-Za-z0-9_]*\})"
QUEUE = r"^[A-Za-z0-9._-]+$"
HEADER = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"


def identifier(text: str) -> str:
    if not re.fullmatch(ID, text):
        raise ValueError(
            "an id has 1 to 64 characters (a-z, 0-9 and -) and does not begin with -; rename it, as in send-welcome"
        )
    return text


def plain(text: str) -> str:
    if "\0" in text:
        raise ValueError("contains a NUL character, which cannot be passed to a program; remove it")
    return text


def duration(text: str) -> str:
    milliseconds = parse_duration(text)
    if milliseconds <= 0:
        raise ValueError(f"{text!r} is zero; write a longer duration such as 10s, or remove the field")
    if milliseconds > LONGEST_MS:
        raise ValueError(f'{text!r} is more than 366 days, the maximum; write "366d" or less')
    return text


def with_unit(value: object) -> object:
    """Refuses a number in place of a duration. The message shows the duration in seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    meant = meant_duration(f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value))
    cure = f'write "{meant}" for seconds' if meant else "write one such as 10s, 1h30m, 3d or 2w"
    raise ValueError(f"must be text with a unit, not a number; {cure}")


def whole(value: object) -> object:
    """Converts a float such as 3.0 to an int, because JSON does not distinguish them."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _event_name(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError(
            "the name of an event must not contain control characters, or begin or end with a space; remove them"
        )
    return text


def event_pattern(text: str) -> str:
    if "*" in text[:-1]:
        raise ValueError(
            f"{text!r} has a `*` before the end; a `*` is allowed only as the last character, as in user/*"
        )
    if text.endswith("*") and text.startswith("stepwell/"):
        raise ValueError(
            f"{text!r} never matches, because wildcards do not match stepwell/... events; write each event's exact name"
        )
    return _event_name(text)


def exact_event(text: str) -> str:
    if "*" in text:
        raise ValueError(f"{text!r} has a wildcard, which is not allowed here; write the event's exact name")
    return _event_name(text)


def sent_event(text: str) -> str:
    if text.startswith("stepwell/"):
        raise ValueError(f"{text!r} is reserved for the engine, as all names that begin with stepwell/; write another")
    return exact_event(text)


def path(text: str) -> str:
    if not text:
        return text  # a step that needs no code
    if not text.startswith("file://"):
        raise ValueError(f"{text[:100]!r} must begin with file://, as in file://./steps/send-sms")
    path = plain(text).removeprefix("file://")
    if path.startswith("/"):
        raise ValueError("is an absolute path; write it relative to the definition, as in file://./steps/send-sms")
    depth = 0
    for part in path.split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        if depth < 0:
            raise ValueError("leads out of the function's folder; move the step's code into that folder")
    return text


def schema(value: object) -> object:
    """A JSON Schema, or the path of a file that contains one."""
    if isinstance(value, str):
        if path(value) == "":
            raise ValueError("is empty; write the schema or a file, as in file://./order.schema.json")
        if value.endswith(".cue"):
            raise ValueError('is a CUE file, but the format is json-schema; add "format": "cue" (CUE is not checked)')
        return value
    if not isinstance(value, dict):
        raise ValueError('must be a JSON Schema such as {"type": "object"}, or a file as in file://./order.schema.json')
    return value


def cue(value: object) -> object:
    """A CUE type, or the path of a file that contains one."""
    if not isinstance(value, str) or not value:
        raise ValueError("must be a CUE type as text, or a file as in file://./events/order.cue")
    return value


def variable(text: str) -> str:
    if not re.fullmatch(VARIABLE, text):
        raise ValueError("the name of a variable has only letters, digits and _, and does not begin with a digit")
    return text


def handler(text: str) -> str:
    if not re.fullmatch(HANDLER, text) or ".." in text or "//" in text:
        raise ValueError(f"{text!r} must be a module and a function, as in app.handler or src/app.handler")
    return text


def wasm_module(text: str) -> str:
    if not re.fullmatch(WASM_MODULE, text) or ".." in text or "//" in text:
        raise ValueError(
            f"{text[:200]!r} must be a file in the step's folder that ends in .wasm, as in build/main.wasm"
        )
    return text


def lambda_arn(text: str) -> str:
    if not re.fullmatch(LAMBDA_ARN, text):
        raise ValueError(
            f"{text[:200]!r} is not the ARN of a Lambda; write one like arn:aws:lambda:REGION:ACCOUNT:function:NAME"
        )
    return text


def layer_arn(text: str) -> str:
    if not re.fullmatch(LAYER_ARN, text):
        raise ValueError(
            f"{text[:200]!r} is not the ARN of a layer's version; write one like"
            " arn:aws:lambda:REGION:ACCOUNT:layer:NAME:VERSION"
        )
    return text


def network(value: object) -> object:
    """Refuses the ids of subnets and security groups: a definition runs in several environments with other networks."""
    if isinstance(value, dict | list):
        raise ValueError(
            "must be true or false; subnets and security groups are settings of the environment:"
            " `cdk deploy -c step_subnets=subnet-... -c step_security_groups=sg-...`"
        )
    return value


def url(text: str) -> str:
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not text.isprintable() or " " in text:
        raise ValueError(f"{text[:100]!r} must be a web address such as https://example.com/hook")
    return text


def address(text: str) -> str:
    """The address of a broker or result backend, or a text with ${NAME}, whose value may be the address."""
    if not text.isprintable() or " " in text or not re.match(ADDRESS, text):
        raise ValueError("must be an address such as redis://localhost:6379/0, or a variable such as ${CELERY_BROKER}")
    return text


def one_line(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("must be one line, without control characters and without spaces around it")
    return text


def queue(text: str) -> str:
    if not re.fullmatch(QUEUE, text):
        raise ValueError("the name of a queue has only letters, digits, `.`, `_` and `-`, as in high-priority")
    return text


def header_name(text: str) -> str:
    if not re.fullmatch(HEADER, text):
        raise ValueError("the name of a header has only letters, digits and -, as in X-Api-Key")
    return text


def header_value(text: str) -> str:
    if not text.isprintable() or not text.isascii():
        raise ValueError("the value of a header must be one line of ASCII characters; remove or encode the others")
    return text
