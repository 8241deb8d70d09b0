def price(event, context):
    print("computing the price")
    if event["event"]["data"].get("flaky") and event["ctx"]["attempt"] == 1:
        return {"status": 503}
    return {"cents": 100 * event["event"]["data"].get("n", 1)}


def total(event, context):
    return {"total": event["steps"]["price"]["cents"] + event["steps"]["count"]["words"]}
