"""Each tick of the clock is an event named `stepwell/scheduled.timer`. `data.scheduled_at` is the time it was due."""

import json
import sys

data = json.load(sys.stdin)["event"]["data"]
print(json.dumps({"report": f"sales up to {data['scheduled_at']}", "schedule": data["cron"]}))
