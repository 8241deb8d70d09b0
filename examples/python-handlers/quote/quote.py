"""AWS Lambda handlers: the event argument is the step's input, the returned value the output, and `print` the log."""

PRICES = {"small": 9.0, "large": 19.0}


def price(event, context):
    plan = event["event"]["data"].get("plan", "small")
    seats = event["event"]["data"].get("seats", 3)
    if plan not in PRICES:  # 4xx: the request is wrong, so it is not retried
        return {"status": 422, "message": f"there is no plan {plan!r}"}
    print(f"{seats} seats of {plan}")
    return {"net": PRICES[plan] * seats}


def tax(event, context):
    net = event["steps"]["price"]["net"]
    return {"net": net, "gross": round(net * 1.19, 2)}
