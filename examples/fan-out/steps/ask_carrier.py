"""Prints one carrier's price. Three steps use this file, with different environment variables."""

import json
import os
import sys

items = json.load(sys.stdin)["event"]["data"].get("items", ["book"])
price = float(os.environ["BASE"]) + float(os.environ["PER_ITEM"]) * len(items)
print(json.dumps({"carrier": os.environ["CARRIER"], "price": round(price, 2)}))
