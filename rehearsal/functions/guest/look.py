"""A native handler that tries what its role must not allow."""

import boto3
from botocore.exceptions import ClientError


def around(event, context):
    """What a step's role lets it see of the account: nothing."""
    lists = {"dynamodb": "list_tables", "lambda": "list_functions", "sqs": "list_queues", "ssm": "describe_parameters"}
    return {service: answer(service, operation) for service, operation in lists.items()}


def answer(service, operation):
    try:
        getattr(boto3.client(service), operation)()
    except ClientError as error:
        return error.response["Error"]["Code"]
    return "allowed"
