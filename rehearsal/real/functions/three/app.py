def price(event, context):
    print("the price was asked for")
    return {"cents": 100 * event["event"]["data"].get("n", 1)}


def total(event, context):
    return {"total": event["steps"]["price"]["cents"] + event["steps"]["count"]["words"]}
