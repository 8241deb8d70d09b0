def handler(event, context):
    return {"greeted": event["event"]["user"].get("email", "somebody")}
