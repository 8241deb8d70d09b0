"""What this step prints is `response` in the conditions of the edges after it."""

import json
import sys

text = json.load(sys.stdin)["event"]["data"].get("text", "How do I export my data?")
print(json.dumps({"priority": "urgent" if "down" in text.lower() else "normal"}))
