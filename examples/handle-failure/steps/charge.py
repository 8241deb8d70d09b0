"""A 4xx status in the output is a final failure. 5xx (and 408, 425, 429) is retried.

An edge with `on: failure` handles this failure, so the run still completes.
"""

import json
import sys

card = json.load(sys.stdin)["event"]["data"].get("card", "expired")
if card == "expired":
    print(json.dumps({"status": 402, "message": "the card has expired"}))
else:
    print(json.dumps({"charged": True}))
