"""A step: stdout is the output, stderr is the log. A non-zero exit code is a failure, which is retried."""

import json
import sys

step_input = json.load(sys.stdin)  # {"event": ..., "steps": ..., "errors": ..., "async": ..., "ctx": ...}
name = step_input["event"]["user"].get("name", "world")

print(f"attempt {step_input['ctx']['attempt']}", file=sys.stderr)
print(json.dumps({"hello": name}))
