import json
import sys

event = json.load(sys.stdin)["event"]
print(
    json.dumps({"amount": event["data"].get("amount", 250), "customer": event["user"].get("email", "ada@example.com")})
)
