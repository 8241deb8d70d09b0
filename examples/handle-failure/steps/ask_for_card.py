"""`errors` contains `{kind, message, status, output}` of the failed steps before this one, by step id."""

import json
import sys

error = json.load(sys.stdin)["errors"]["charge"]
print(json.dumps({"mail": f"Please give us another card: {error['output']['message']}"}))
