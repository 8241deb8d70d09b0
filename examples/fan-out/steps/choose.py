"""The outputs of all steps before this one are in `steps`, by their ids."""

import json
import sys

offers = json.load(sys.stdin)["steps"].values()
print(json.dumps(min(offers, key=lambda offer: offer["price"])))
