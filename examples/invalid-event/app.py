def handler(event, context):
    wrong = event["event"]["data"]
    places = [error["pointer"] for error in wrong.get("errors", [])]
    return {"text": f"{wrong.get('event_name', 'an event')} is wrong at {', '.join(places) or 'no place'}"}
