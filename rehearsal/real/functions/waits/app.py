import time


def begin(event, context):
    return {"at": time.time()}


def answered(event, context):
    return {"answer": event["async"]["data"]["answer"]}
