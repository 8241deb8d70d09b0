"""What this step prints is `response` in the `match` of the edges after it."""

import json
import sys

data = json.load(sys.stdin)["event"]["data"]
print(json.dumps({"invoice": data.get("invoice", "2026-0001"), "sent": True}))
