"""A plain AWS Lambda handler: the return value is the output, stdout is the log. An exception is a failure, which is
retried."""


def handler(event, context):
    # event: {"event": ..., "steps": ..., "errors": ..., "async": ..., "ctx": ...}
    print(f"attempt {event['ctx']['attempt']}")
    return {"hello": event["event"]["user"].get("name", "world")}
