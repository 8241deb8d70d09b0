def price(event, context):
    return {"cents": event["event"]["data"]["total"] * 100}


def charge(event, context):
    if event["event"]["data"].get("declined") and event["ctx"]["attempt"] == 1:
        return {"status": 503}
    return {"charged": event["steps"]["price"]["cents"]}


def ship(event, context):
    return {"shipped": event["async"]["data"]["order"], "paid": event["steps"]["charge"]["charged"]}
