def handler(event: object, context: object) -> None:
    return None
