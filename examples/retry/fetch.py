"""The service that this step pretends to call is down the first two times: 503 is tried again, with a delay."""

import json
import sys

attempt = json.load(sys.stdin)["ctx"]["attempt"]
if attempt < 3:
    print(json.dumps({"status": 503, "message": "no answer yet"}))
else:
    print(json.dumps({"eur_usd": 1.08, "after_attempts": attempt}))
