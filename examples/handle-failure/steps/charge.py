"""A 4xx status in the output is a failure for good, a 5xx (or 408, 425, 429) is tried again.

As an edge `on: failure` handles it, the run completes all the same.
"""

import json
import sys

card = json.load(sys.stdin)["event"]["data"].get("card", "expired")
if card == "expired":
    print(json.dumps({"status": 402, "message": "the card has expired"}))
else:
    print(json.dumps({"charged": True}))
