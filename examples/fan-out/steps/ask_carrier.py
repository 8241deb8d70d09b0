"""One carrier's price. Three steps share this file and differ in their environment."""

import json
import os
import sys

items = json.load(sys.stdin)["event"]["data"].get("items", ["book"])
price = float(os.environ["BASE"]) + float(os.environ["PER_ITEM"]) * len(items)
print(json.dumps({"carrier": os.environ["CARRIER"], "price": round(price, 2)}))
