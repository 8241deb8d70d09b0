"""A tick is an event like any other: `stepwell/scheduled.timer`, with the time it was due at in its data."""

import json
import sys

data = json.load(sys.stdin)["event"]["data"]
print(json.dumps({"report": f"sales up to {data['scheduled_at']}", "schedule": data["cron"]}))
