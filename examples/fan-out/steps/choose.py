"""`steps` contains the outputs of all steps before this one, by step id."""

import json
import sys

offers = json.load(sys.stdin)["steps"].values()
print(json.dumps(min(offers, key=lambda offer: offer["price"])))
