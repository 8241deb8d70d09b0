def handler(event, context):
    return {"nudged": event["steps"]["greet"]["greeted"]}
