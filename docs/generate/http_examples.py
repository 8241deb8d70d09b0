"""The examples of reference/http-api.md: names and ids for the paths, queries and bodies.

`tests/test_http_page.py` runs every example, with a function `welcome`, a type `order/placed`, a webhook `github` and a
source `orders`.
"""

from __future__ import annotations

from typing import Any

SHOWN = "http://127.0.0.1:8288"
NAMES = {
    "/e/{key}": "$STEPWELL_KEY",
    "/webhooks/{name}": "github",
    "/v1/approvals/{token}": "$TOKEN",
    "/v1/events/{id}": "signup-1",
    "/v1/functions/{id}": "welcome",
    "/v1/runs/{id}": "$RUN_ID",
    "/v1/sources/{id}": "orders",
    "/v1/sources/{id}/quarantine/{record}": "$RECORD_ID",
    "/v1/types/{id}": "order/placed",
    "/v1/webhooks/{id}": "github",
    "/v1/workers/{id}": "4qpc2443vpvai",
}
QUERIES = {
    "DELETE /v1/types/{id}": "version=2026-11-23.1",
    "DELETE /v1/users": "id=ada@example.com",
    "GET /v1/users/timeline": "id=ada@example.com",
}
_SIGNED_UP = (
    '{"id": "signup-1", "name": "user/signed.up", "data": {"plan": "pro"}, "user": {"email": "ada@example.com"}}'
)
_PLACED = '{"name": "order/placed", "data": {"amount": 3}}'
_TYPE = '{"name": "order/placed", "version": "2026-11-23.1", "schema": {"type": "object", "required": ["amount"]}}'
BODIES = {
    "POST /e": _SIGNED_UP,
    "POST /e/{key}": f"[{_PLACED}, {_PLACED}]",
    "POST /webhooks/{name}": '{"ref": "refs/heads/main"}',
    "POST /v1/approvals/{token}": '{"comment": "as agreed", "by": "Grace"}',
    "POST /v1/functions": "@welcome.zip",
    "POST /v1/functions/{id}/pause": '{"drop": false}',
    "POST /v1/functions/{id}/promote": '{"weight": 0.5}',
    "POST /v1/functions/{id}/replay": '{"replay": "after-the-fix", "events": [{"id": "signup-1"}]}',
    "POST /v1/functions/{id}/rollback": '{"to": 1}',
    "PUT /v1/functions/{id}/routing": '{"canary": {"version": 2, "weight": 0.1, "guard": true}}',
    "POST /v1/runs/{id}/rerun": '{"from_step": "step-2", "outputs": {"step-1": {"total": 12}}}',
    "PUT /v1/limits": '{"limits": {"welcome/concurrency": {"limit": 20}}}',
    "PUT /v1/functions/{id}/limits": '{"limits": {"concurrency": {"limit": 20}}}',
    "PUT /v1/settings": '{"unknown_types": "warn"}',
    "PUT /v1/sources/{id}": '{"type": "redis", "url": "redis://localhost", "stream": "orders", "event": "order/made"}',
    "POST /v1/sources/{id}/replay": '{"from": "earliest"}',
    "POST /v1/sources/{id}/quarantine/retry": """{"ids": ['"$RECORD_ID"']}""",
    "POST /v1/sources/{id}/quarantine/discard": """{"ids": ['"$RECORD_ID"']}""",
    "POST /v1/types": _TYPE,
    "PUT /v1/types": '{"types": [' + _TYPE + "]}",
    "PATCH /v1/types/{id}": '{"policy": "reject", "default": "2026-11-23.1"}',
    "PUT /v1/webhooks/{id}": '{"event": "github/push", "verify": null}',
}


def curl(method: str, path: str, operation: dict[str, Any]) -> str:
    """The command of an example. Raises ValueError if a name or a body is missing above."""
    name, body = f"{method} {path}", operation.get("requestBody")
    url = SHOWN + _filled(path)
    words = ["curl"]
    if method != ("POST" if body else "GET"):
        words.append(f"-X {method}")
    words.append(f"'{url}?{QUERIES[name]}'" if name in QUERIES else url)
    if operation.get("security") != [] and "{key}" not in path and path != "/healthz":
        words.append('-H "Authorization: Bearer $STEPWELL_KEY"')
    if body:
        media_type = next(iter(body["content"]))
        if path.startswith("/v1") or path == "/webhooks/{name}":
            words.append(f"-H 'Content-Type: {media_type}'")
        content = _entry("BODIES", BODIES, name)
        words.append(f"--data-binary {content}" if content.startswith("@") else f"-d '{content}'")
    return " \\\n  ".join(words) if len(" ".join(words)) > 80 else " ".join(words)


def _filled(path: str) -> str:
    """The path with the names of the example."""
    filled, done = "", 0
    while (start := path.find("{", done)) >= 0:
        end = path.index("}", start) + 1
        filled += path[done:start] + _entry("NAMES", NAMES, path[:end])
        done = end
    return filled + path[done:]


def _entry(table: str, entries: dict[str, str], key: str) -> str:
    if key not in entries:
        raise ValueError(f"{table} in docs/generate/http_examples.py has no entry for {key!r}")
    return entries[key]
