import json
import sys

order = json.loads(sys.argv[1])["event"]["data"]
print(json.dumps({"order": order.get("id"), "reserved": len(order.get("items", []))}))
