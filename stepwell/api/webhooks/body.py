"""Parses the body of a webhook request to JSON data: JSON, a form, or text.

The format is decided by the webhook's rule, else by the content type, else by the content. JSON that cannot be stored
exactly is an error; it is never treated as text.
"""

from __future__ import annotations

import re
from typing import Any

from stepwell.core import exact_json
from stepwell.core.cel.json_fields import json_of_text, read_json
from stepwell.core.webhooks.form import MOST_FIELDS, form_fields

_MAX_PART_HEAD = 8192  # bytes of the headers of a part
_CHARSETS = {
    **dict.fromkeys(("utf-8", "utf8", "us-ascii", "ascii"), "utf-8-sig"),
    **dict.fromkeys(("iso-8859-1", "latin-1", "latin1"), "latin-1"),
    **dict.fromkeys(("windows-1252", "cp1252"), "cp1252"),
    **dict.fromkeys(("utf-16", "utf-16le", "utf-16be"), "utf-16"),
}
_CHARSET = re.compile(r";\s*charset=\"?([^\s;\"]+)", re.IGNORECASE)
_IS_JSON = re.compile(r"[^;]*[/+]json")
_FORM, _MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
_BOUNDARY = re.compile(r";\s*boundary=(?:\"([^\"]{1,200})\"|([^\s;\"]{1,200}))", re.IGNORECASE)
_DISPOSITION = re.compile(rb"^content-disposition:[ \t]*form-data(;[^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_PART_TYPE = re.compile(rb"^content-type:[ \t]*([^\r\n]{1,200})", re.IGNORECASE | re.MULTILINE)
_PARAMETER = re.compile(rb";\s*(name|filename)=\"((?:[^\"\\]|\\.)*)\"", re.IGNORECASE)


def is_form(content_type: str, reading: str = "") -> bool:
    """Whether a body is parsed as a form. `reading` is the format in the webhook's rule, if any."""
    kind = _media_type(content_type)
    return reading == "form" or (not reading and kind in (_FORM, _MULTIPART))


def read_body(content_type: str, body: bytes, reading: str = "") -> Any:
    """The body as JSON data. `reading` is the format in the webhook's rule (json, form, text); it overrides the content
    type. Raises ValueError."""
    kind = _media_type(content_type)
    if not body:
        return {} if is_form(content_type, reading) else None
    if is_form(content_type, reading):
        if kind == _MULTIPART:
            return _parts(content_type, body)
        return fields_of(_text(content_type, body), "strict")
    text = _text(content_type, body)
    if reading == "text":
        return text
    is_json_type = _IS_JSON.fullmatch(kind) is not None
    if reading == "json" or is_json_type or not kind:
        try:
            return read_json(text)
        except exact_json.Unusable as error:
            raise ValueError(f"the JSON body cannot be stored exactly: {error}") from None
        except ValueError as error:
            if reading == "json" or is_json_type:
                source = "the content type" if is_json_type else "the rule"
                raise ValueError(f"the body is not JSON, but {source} requires it: {error}") from None
            return text
    value = json_of_text(text)
    return text if value is None else value


def fields_of(text: str, errors: str) -> dict[str, Any]:
    """The fields of a form or a query by name; a repeated field becomes a list."""
    found: dict[str, Any] = {}
    for name, value in form_fields(text, errors):
        _add(found, name, value)
    return found


def _add(found: dict[str, Any], name: str, value: Any) -> None:
    if name not in found:
        found[name] = value
    elif isinstance(found[name], list):
        found[name].append(value)
    else:
        found[name] = [found[name], value]


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _text(content_type: str, body: bytes) -> str:
    named = _CHARSET.search(content_type)
    charset = _CHARSETS.get(named[1].lower()) if named else "utf-8-sig"  # drops a byte order mark
    if charset is None:
        raise ValueError("the charset of the body is not supported; use UTF-8")
    if (
        charset == "utf-16"
        and named
        and named[1][-2:].lower() in ("le", "be")
        and body[:2] not in (b"\xff\xfe", b"\xfe\xff")
    ):
        charset = named[1]
    try:
        return body.decode(charset)
    except UnicodeDecodeError:
        raise ValueError(f"the body is not {named[1] if named else 'UTF-8'}") from None


def _parts(content_type: str, body: bytes) -> dict[str, Any]:
    """The fields of a multipart form (RFC 7578). Of a file, only name, type and size are kept, not the content."""
    named = _BOUNDARY.search(content_type)
    if named is None:
        raise ValueError("the content type of the form names no boundary")
    pieces = (b"\r\n" + body).split(b"\r\n--" + (named[1] or named[2]).encode("latin-1"), MOST_FIELDS + 2)
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        more = len(pieces) > MOST_FIELDS + 2
        raise ValueError(f"the form has more than {MOST_FIELDS:,} fields" if more else "the form is not complete")
    found: dict[str, Any] = {}
    for piece in pieces[1:-1]:
        head, _, content = piece.partition(b"\r\n\r\n")
        if len(head) > _MAX_PART_HEAD:
            raise ValueError("a part of the form has headers that are too long")
        disposition = _DISPOSITION.search(head)
        parameters = dict(_PARAMETER.findall(disposition[1])) if disposition else {}
        if b"name" not in parameters:
            raise ValueError("a part of the form has no name")
        kind = _PART_TYPE.search(head)
        part_type = kind[1].decode("latin-1").strip() if kind else ""
        name = _unquoted(parameters[b"name"])
        if b"filename" in parameters:
            file = {"filename": _unquoted(parameters[b"filename"]), "content_type": part_type, "size": len(content)}
            _add(found, name, file)
        else:
            _add(found, name, _text(part_type, content))
    return found


def _unquoted(text: bytes) -> str:
    return re.sub(rb"\\(.)", rb"\1", text).decode("utf-8", "replace")
