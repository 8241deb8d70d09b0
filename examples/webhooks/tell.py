"""Starts on requests of GitHub and Stripe to /webhooks/github and /webhooks/stripe. The rules are in webhooks/.

stepwell webhooks test github --body push.json --header X-GitHub-Event:push
"""

import json
import sys

event = json.load(sys.stdin)["event"]
data = event["data"]
messages = {
    "github/push": f"{len(data.get('commits', []))} commits to {data.get('ref', 'somewhere')}",
    "stripe/charge.succeeded": f"{data.get('amount', 0) / 100:.2f} {data.get('currency', '')}".strip(),
}
user = event["user"].get("external_id", "somebody")
print(json.dumps({"who": user, "what": messages.get(event["name"], "something")}))
