import json

print(json.dumps({"boxes": 2}))
