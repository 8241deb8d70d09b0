"""What this prints on stdout is the step's output, stderr is its log. A non-zero exit is a failure, to be retried."""

import json
import sys

given = json.load(sys.stdin)  # {"event": ..., "steps": ..., "errors": ..., "async": ..., "ctx": ...}
name = given["event"]["user"].get("name", "world")

print(f"attempt {given['ctx']['attempt']}", file=sys.stderr)
print(json.dumps({"hello": name}))
