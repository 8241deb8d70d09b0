"""A custom resource of CloudFormation: creates the service-linked role of ECS, unless the account has it.

The code is inlined into the template, and Lambda adds the module `cfnresponse`. The role is not deleted with the stack,
since others may use it.
"""

import time

import boto3
import cfnresponse

ROLE, SERVICE = "AWSServiceRoleForECS", "ecs.amazonaws.com"
PROPAGATION_S = 15  # until ECS can assume a new role
COMMAND = f"aws iam create-service-linked-role --aws-service-name {SERVICE}"


def handler(event, context):
    reason = None
    if event["RequestType"] != "Delete":
        try:
            ensure(boto3.client("iam"))
        except Exception as error:
            reason = f"ECS needs the role {ROLE}, which could not be created: {error}. Create it with: {COMMAND}"
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
        iam.get_role(RoleName=ROLE)  # it was created in the meantime
    time.sleep(PROPAGATION_S)
