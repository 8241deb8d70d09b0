"""The page reference/http-api.md: every operation of the HTTP API, from the OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from http_examples import curl
from tables import source, table

from stepwell.api.openapi import document
from stepwell.api.v1 import app

INTRODUCTION = f"""\
# HTTP API

{source("the OpenAPI document, which comes from the operations in stepwell/api/v1")}

Every server serves this API, on one machine and on AWS. This page is generated from the OpenAPI 3.1 document that any
server returns at `/openapi.json`, so clients can be generated from it.

- **Keys**: `Authorization: Bearer KEY`. A key with the scope `send` may send events. `/v1` needs the scope `manage`.
  `stepwell dev` accepts any key, and only requests from this machine. `POST /e/KEY` has the key in the path, for senders
  that cannot set headers.
- **Lists** are `{{"data": [...], "next": "..."}}`, newest first. `next` is the value of `after` for the next page, and
  `null` on the last one. `limit` is 50 if not given, and at most 1,000.
- **Times** are RFC 3339 in answers. The `ts` of an event is in milliseconds since the epoch.
- **Errors** are [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) problem documents (`application/problem+json`) with
  `status`, `message` and `error`. `errors` has one entry, with a JSON pointer, for each thing that is wrong.
- **On AWS** the address is that of the environment's API. Paths have no prefix.

The examples use a server on this machine. `$STEPWELL_KEY` is a key with the scope `manage`. `$RUN_ID` is the id of a
run, `$TOKEN` is the last part of an approval's link, and `$RECORD_ID` the id of a record in a source's quarantine. The
function is called `welcome`, the type `order/placed`, the webhook `github` and the source `orders`.

| status | meaning |
| --- | --- |
| 400 | The request is wrong; `message` and `errors` name what is wrong with it. |
| 401 | The key is missing or wrong. |
| 403 | The key does not have the scope `manage`. |
| 404 | There is no run, event, function or other thing with this id. |
| 409 | The present state does not allow it: for example, only a running run can be cancelled. |
| 413 | The request is too large: see [limits](limits.md). |
| 415 | The `Content-Encoding` or `Content-Type` is not supported. |
| 422 | The rule of the webhook cannot make an event of this request. |
| 503 | The server cannot answer now. Send the same request again; `Retry-After` gives a delay. |
"""

SEND = """\
The answer is sent once the events are durable. If any event is wrong, the answer is 400 and nothing is
accepted. Every error is listed with the event's index and a JSON pointer.

| field of an event | type | meaning |
| --- | --- | --- |
| `name` | text | **Required.** At most 256 characters. Names that begin with `stepwell/` are the engine's own, except [`stepwell/identify`](engine-events.md#stepwellidentify). |
| `data` | object | What happened. `{}` if not given. |
| `user` | object | Who it happened to. The first of `external_id`, `id`, `email` and `phone` is the user's id in lists. |
| `id` | text | At most 256 characters. A second event with the same id within 24 hours is accepted and starts nothing. |
| `ts` | number | Milliseconds since the epoch. The time of arrival if not given. |
| `v` | text | The version of the event's type. |

Limits of a request and of an event: [limits](limits.md).
"""

GROUPS = (
    ("Send events", ("/e", "/e/{key}", "/webhooks/{name}")),
    ("Events", ("/v1/events",)),
    ("Runs", ("/v1/runs",)),
    ("Functions and versions", ("/v1/functions",)),
    ("Limits", ("/v1/limits",)),
    ("Approvals", ("/v1/approvals",)),
    ("Types of events", ("/v1/types",)),
    ("Webhook rules", ("/v1/webhooks",)),
    ("Sources", ("/v1/sources",)),
    ("Users", ("/v1/users",)),
    ("Faktory workers", ("/v1/workers",)),
    ("Health and settings", ("/healthz", "/v1/settings")),
)


def openapi() -> dict[str, Any]:
    """The OpenAPI document of a server."""
    groups = [getattr(app, name) for name in dir(app) if name.endswith("_OPERATIONS")]
    return document([operation for group in groups for operation in group])


def page() -> str:
    """The content of the page."""
    api = openapi()
    left = dict(api["paths"])
    parts = [INTRODUCTION]
    for title, prefixes in GROUPS:
        paths = [path for path in left if any(path == p or path.startswith(f"{p}/") for p in prefixes) and path in left]
        paths = sorted(paths, key=lambda path: (path.count("/"), path))
        if not paths:
            continue
        parts.append(f"## {title}\n")
        parts += [SEND] if "/e" in paths else []
        for path in paths:
            for method, operation in left.pop(path).items():
                parts += _operation(method.upper(), path, operation, api)
    if left:
        raise ValueError(f"http_page.py has no group for {', '.join(left)}")
    parts.append("## Shapes\n")
    for name, shape in sorted(api["components"]["schemas"].items()):
        parts += _shape(name, shape)
    return "\n".join(parts)


def _operation(method: str, path: str, operation: dict[str, Any], api: Mapping[str, Any]) -> Iterator[str]:
    yield f"### `{method} {path}`\n"
    yield f"{operation['summary']}.\n"
    yield f"```sh\n{curl(method, path, operation)}\n```\n"
    if parameters := [p for p in operation.get("parameters", ()) if p["in"] == "query"]:
        rows = [(f"`{p['name']}`", _type(p["schema"]), _meaning(p, p.get("required"))) for p in parameters]
        yield table(("parameter", "type", "meaning"), rows)
    body = operation.get("requestBody")
    if body and path.startswith("/v1"):
        media_type, content = next(iter(body["content"].items()))
        needed = "" if body.get("required", True) else " It can be left out."
        yield f"**Body** (`{media_type}`): {_type(content.get('schema', {}))}.{needed}\n"
        if fields := _fields(content.get("schema", {})):
            yield table(("field", "type", "meaning"), fields)
    answers = {status: next(iter(answer["content"].values())) for status, answer in operation["responses"].items()}
    errors = [status for status, content in answers.items() if "ProblemView" in str(content)]
    (done,) = answers.keys() - errors
    text = f" **Errors**: {', '.join(errors)}." if errors else ""
    yield f"**Answer** {done}: {_type(answers[done]['schema'])}.{text}\n"


def _fields(schema: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    required = schema.get("required", ())
    return [
        (f"`{name}`", _type(field), _meaning(field, name in required))
        for name, field in schema.get("properties", {}).items()
    ]


def _meaning(item: Mapping[str, Any], is_required: Any) -> str:
    """What a field or a parameter means."""
    return f"{'**Required.** ' if is_required else ''}{item.get('description', '')}"


def _shape(name: str, shape: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {name}\n"
    if text := shape.get("description"):
        yield f"{' '.join(text.split())}\n"
    if fields := _fields({**shape, "required": ()}):
        yield table(("field", "type", "meaning"), fields)
    elif "enum" in shape:
        yield f"One of {_type(shape)}.\n"


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return " or ".join(dict.fromkeys(_type(part) for part in schema[word]))
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type", "any JSON value")
    if isinstance(kind, list):
        return " or ".join(_type({**schema, "type": item}) for item in kind)
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object" and isinstance(values := schema.get("additionalProperties"), dict):
        return f"map to {_type(values)}"
    if kind == "string":
        return "time" if schema.get("format") == "date-time" else "text"
    return {"integer": "whole number", "null": "`null`"}.get(str(kind), str(kind))
