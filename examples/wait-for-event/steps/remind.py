"""Runs if the event does not come in time."""

import json
import sys

invoice = json.load(sys.stdin)["steps"]["send-invoice"]["invoice"]
print(json.dumps({"reminder": f"invoice {invoice} is still open"}))
