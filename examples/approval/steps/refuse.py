import json
import sys

decision = json.load(sys.stdin)["steps"]["confirm"]
print(json.dumps({"mail": f"We cannot pay you back: {decision['comment'] or 'it was declined'}"}))
