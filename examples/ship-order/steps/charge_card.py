"""The bank is busy at first: a status of 503 is tried again, after 30 s and longer."""

import json
import sys

input = json.loads(sys.argv[1])
if input["ctx"]["attempt"] == 1:
    print(json.dumps({"status": 503}))
else:
    print(json.dumps({"charged": input["event"]["data"].get("total", 0)}))
