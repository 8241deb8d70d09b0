"""A step can be any program. This one reads its input from stdin and prints its output. There is no SDK to import."""

import json
import sys

step_input = json.load(sys.stdin)
event, ctx = step_input["event"], step_input["ctx"]

name = event["user"].get("name", "stranger")
print(f"attempt {ctx['attempt']} of run {ctx['run_id']}", file=sys.stderr)  # stderr is the step's log
print(json.dumps({"greeting": f"Hello, {name}!", "key": ctx["idempotency_key"]}))
