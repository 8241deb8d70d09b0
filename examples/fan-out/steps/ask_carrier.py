"""One carrier's price. Three steps share this file and differ in their environment."""

import json
import os
import sys

weight = json.load(sys.stdin)["event"]["data"].get("weight_kg", 2)
price = float(os.environ["BASE"]) + float(os.environ["PER_KG"]) * weight
print(json.dumps({"carrier": os.environ["CARRIER"], "price": round(price, 2)}))
