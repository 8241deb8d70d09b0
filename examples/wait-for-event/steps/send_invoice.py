"""The `match` of the edges after this step reads its output as `response`."""

import json
import sys

data = json.load(sys.stdin)["event"]["data"]
print(json.dumps({"invoice": data.get("invoice", "2026-0001"), "sent": True}))
