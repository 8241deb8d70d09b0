"""Simulates a service that is down for the first two attempts. Status 503 is retried after a delay."""

import json
import sys

attempt = json.load(sys.stdin)["ctx"]["attempt"]
if attempt < 3:
    print(json.dumps({"status": 503, "message": "no answer yet"}))
else:
    print(json.dumps({"eur_usd": 1.08, "after_attempts": attempt}))
