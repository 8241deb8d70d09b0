"""A step is any program: this one reads its input from stdin and prints its output. No SDK, nothing to import."""

import json
import sys

given = json.load(sys.stdin)
event, ctx = given["event"], given["ctx"]

name = event["user"].get("name", "stranger")
print(f"attempt {ctx['attempt']} of run {ctx['run_id']}", file=sys.stderr)  # stderr is the log
print(json.dumps({"greeting": f"Hello, {name}!", "key": ctx["idempotency_key"]}))
