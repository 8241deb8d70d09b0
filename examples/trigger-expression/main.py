"""Starts only if a trigger's expression is true. Expressions compare typed values: timestamps, numbers, lists.

stepwell run examples/trigger-expression --event \
    '{"name": "order/imported.csv", "data": {"total": "120.50", "currency": "EUR"}}'
"""

import json
import sys

event = json.load(sys.stdin)["event"]
print(json.dumps({"thanks_to": event["user"].get("name", "a loyal customer"), "because_of": event["name"]}))
