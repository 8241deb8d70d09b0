"""A plain AWS Lambda handler: what it returns is the step's output, what it prints is its log, and raising is a
failure, to be retried."""


def handler(event, context):
    # event: {"event": ..., "steps": ..., "errors": ..., "async": ..., "ctx": ...}
    print(f"attempt {event['ctx']['attempt']}")
    return {"hello": event["event"]["user"].get("name", "world")}
