"""`steps` contains the outputs of completed steps. Skipped steps are not in it."""

import json
import sys

steps = json.load(sys.stdin)["steps"]
print(json.dumps({"archived": True, "went_through": sorted(steps)}))
