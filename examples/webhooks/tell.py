"""Starts on what GitHub and Stripe send to /webhooks/github and /webhooks/stripe, by the rules in webhooks/.

stepwell webhooks test github --body push.json --header X-GitHub-Event:push
"""

import json
import sys

event = json.load(sys.stdin)["event"]
data = event["data"]
what = {
    "github/push": f"{len(data.get('commits', []))} commits to {data.get('ref', 'somewhere')}",
    "stripe/charge.succeeded": f"{data.get('amount', 0) / 100:.2f} {data.get('currency', '')}".strip(),
}
print(json.dumps({"who": event["user"].get("external_id", "somebody"), "what": what.get(event["name"], "something")}))
