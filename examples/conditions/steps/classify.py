"""Conditions (`if`) of the edges after this step read its output as `response`."""

import json
import sys

text = json.load(sys.stdin)["event"]["data"].get("text", "How do I export my data?")
print(json.dumps({"priority": "urgent" if "down" in text.lower() else "normal"}))
