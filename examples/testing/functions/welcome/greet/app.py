def handler(event, context):
    return {"greeted": event["event"]["user"]["email"]}
