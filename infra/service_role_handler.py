"""A custom resource of CloudFormation: the role with which ECS works in this account exists, whoever made it, and when.

It is deployed as a text, beside which Lambda puts `cfnresponse`. The role stays when the stack goes: others may use it.
"""

import time

import boto3
import cfnresponse

ROLE, SERVICE = "AWSServiceRoleForECS", "ecs.amazonaws.com"
PROPAGATION_S = 15  # until ECS can assume a role that is new
COMMAND = f"aws iam create-service-linked-role --aws-service-name {SERVICE}"


def handler(event, context):
    reason = None
    if event["RequestType"] != "Delete":
        try:
            ensure(boto3.client("iam"))
        except Exception as error:
            reason = f"ECS needs the role {ROLE}, which could not be made: {error}. Make it once by: {COMMAND}"
    status = cfnresponse.FAILED if reason else cfnresponse.SUCCESS
    cfnresponse.send(event, context, status, {}, ROLE, reason=reason)


def ensure(iam):
    try:
        iam.get_role(RoleName=ROLE)
        return
    except iam.exceptions.NoSuchEntityException:
        pass
    try:
        iam.create_service_linked_role(AWSServiceName=SERVICE)
    except iam.exceptions.InvalidInputException:
        iam.get_role(RoleName=ROLE)  # somebody else made it meanwhile
    time.sleep(PROPAGATION_S)
