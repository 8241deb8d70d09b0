"""The permissions that AWS requires for requests, and an evaluation of IAM policies.

Requests that are not known here raise an error, so that no request remains untested.
https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
ACCOUNT, REGION = "123456789012", "eu-central-1"


@dataclass(frozen=True)
class Access:
    """One permission that a request needs. `context`: the values of condition keys."""

    action: str
    resource: str
    context: tuple[tuple[str, tuple[str, ...]], ...] = ()


def access(action: str, resource: str, **context: str | tuple[str, ...]) -> Access:
    """`context`: condition key -> value, with `__` in place of the colon."""
    values = {key.replace("__", ":"): (item,) if isinstance(item, str) else item for key, item in context.items()}
    return Access(action, resource, tuple(sorted(values.items())))


# --- policies --------------------------------------------------------------------------------------------------------


def is_allowed(policy: Json, access: Access) -> bool:
    """Whether the policy allows the access. An explicit denial overrides."""
    effects = {statement["Effect"] for statement in policy["Statement"] if _applies(statement, access)}
    return effects == {"Allow"}


def _applies(statement: Json, access: Access) -> bool:
    actions, resources = _list(statement["Action"]), _list(statement["Resource"])
    has_action = any(_like(action, access.action) for action in actions)
    return has_action and any(_like(pattern, access.resource) for pattern in resources) and _holds(statement, access)


def _holds(statement: Json, access: Access) -> bool:
    context = dict(access.context)
    for operator, tests in statement.get("Condition", {}).items():
        for key, wanted in tests.items():
            values, patterns = context.get(key, ()), _list(wanted)
            match operator:
                case "StringEquals" | "ArnEquals":
                    holds = any(value in patterns for value in values)
                case "StringLike" | "ArnLike":
                    holds = any(_like(pattern, value) for pattern in patterns for value in values)
                case "ForAllValues:StringLike":
                    holds = all(any(_like(pattern, value) for pattern in patterns) for value in values)
                case _:
                    raise NotImplementedError(f"what does {operator} ask?")
            if not holds:
                return False
    return True


def single(policy: Json) -> Iterator[Json]:
    """The policy split into one policy for each action, resource and value, so that each can be tested."""
    for statement in policy["Statement"]:
        for action in _list(statement["Action"]):
            for resource in _list(statement["Resource"]):
                for condition in _single(statement.get("Condition", {})):
                    one = {**statement, "Action": action, "Resource": resource, "Condition": condition}
                    yield {"Statement": [one]}


def _single(condition: Json) -> Iterator[Json]:
    keys = condition.get("ForAllValues:StringLike", {}).get("dynamodb:LeadingKeys")
    if keys is None:
        yield condition
    else:
        for key in keys:
            yield {**condition, "ForAllValues:StringLike": {"dynamodb:LeadingKeys": key}}


def _like(pattern: str, value: str) -> bool:
    expression = "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in pattern)
    return re.fullmatch(expression, value, re.DOTALL) is not None


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


# --- requests --------------------------------------------------------------------------------------------------------


def arn(service: str, name: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{name}"


def role_arn(name: str) -> str:
    return f"arn:aws:iam::{ACCOUNT}:role/{name}"


@dataclass
class Account:
    """The state from earlier requests that decides the values of condition keys."""

    boundaries: dict[str, str] = field(default_factory=dict)  # by role
    tags: dict[str, dict[str, str]] = field(default_factory=dict)

    def needs(self, service: str, operation: str, fields: Json) -> Iterator[Access]:
        match service:
            case "dynamodb":
                yield from self._dynamodb(operation, fields)
            case "lambda":
                yield from self._lambda(operation, fields)
            case "iam":
                yield from self._iam(operation, fields)
            case "ssm":
                yield from self._ssm(operation, fields)
            case "logs":
                yield from self._logs(operation, fields)
            case "s3":
                yield from self._s3(operation, fields)
            case "ecs":
                yield from self._ecs(operation, fields)
            case "ecr" | "cloudformation":
                repository = fields.get("repositoryName")
                yield access(f"{service}:{operation}", arn("ecr", f"repository/{repository}") if repository else "*")
            case "sts" if operation == "GetCallerIdentity":
                return  # it needs no permission
            case _:
                raise NotImplementedError(f"what does {service}:{operation} need?")

    def _dynamodb(self, operation: str, fields: Json) -> Iterator[Access]:
        if operation in ("BatchGetItem", "BatchWriteItem"):
            for table, requests in fields["RequestItems"].items():
                keys = requests["Keys"] if operation == "BatchGetItem" else [_written(one) for one in requests]
                yield _row(operation, f"table/{table}", *(key["pk"]["S"] for key in keys))
        elif operation == "Query":
            value = re.match(r"[pg]k = (:\w+)", fields["KeyConditionExpression"])
            assert value is not None
            index = f"/index/{fields['IndexName']}" if "IndexName" in fields else ""
            yield _row(
                operation, f"table/{fields['TableName']}{index}", fields["ExpressionAttributeValues"][value[1]]["S"]
            )
        elif operation in ("GetItem", "PutItem", "UpdateItem"):
            key = fields["Item"] if operation == "PutItem" else fields["Key"]
            yield _row(operation, f"table/{fields['TableName']}", key["pk"]["S"])
        else:
            raise NotImplementedError(operation)

    def _lambda(self, operation: str, fields: Json) -> Iterator[Access]:
        if operation in ("ListFunctions", "ListLayerVersions"):
            yield access(f"lambda:{operation}", "*")
            return
        if operation == "DeleteLayerVersion":
            yield access(f"lambda:{operation}", arn("lambda", f"layer:{fields['LayerName']}:{fields['VersionNumber']}"))
            return
        name = fields.get("FunctionName") or fields["Resource"]
        function = name if name.startswith("arn:") else arn("lambda", f"function:{name}")
        yield access(f"lambda:{operation}", function)
        if fields.get("Tags"):
            yield access("lambda:TagResource", function)
        if "Role" in fields:
            yield access("iam:PassRole", fields["Role"], iam__PassedToService="lambda.amazonaws.com")
        for layer in fields.get("Layers", ()):
            yield access("lambda:GetLayerVersion", layer)
        if "S3Key" in fields.get("Code", {}):
            yield access("s3:GetObject", f"arn:aws:s3:::{fields['Code']['S3Bucket']}/{fields['Code']['S3Key']}")

    def _iam(self, operation: str, fields: Json) -> Iterator[Access]:
        if operation == "ListRoles":
            yield access("iam:ListRoles", "*")
            return
        name = fields["RoleName"]
        if operation in ("CreateRole", "PutRolePermissionsBoundary"):
            self.boundaries[name] = fields.get("PermissionsBoundary", "")
        if operation == "CreateRole":
            self.tags[name] = {tag["Key"]: tag["Value"] for tag in fields.get("Tags", ())}
        context: dict[str, Any] = {"iam__PermissionsBoundary": self.boundaries.get(name, "")}
        if operation != "CreateRole":
            context |= {f"aws__ResourceTag/{key}": value for key, value in self.tags.get(name, {}).items()}
        yield access(f"iam:{operation}", role_arn(name), **context)
        if fields.get("Tags"):
            yield access("iam:TagRole", role_arn(name))

    def _ssm(self, operation: str, fields: Json) -> Iterator[Access]:
        if operation == "DescribeParameters":
            yield access("ssm:DescribeParameters", "*")
            return
        for name in fields["Names"] if "Names" in fields else [fields["Name"]]:
            yield access(f"ssm:{operation}", arn("ssm", f"parameter{name}"))

    def _logs(self, operation: str, fields: Json) -> Iterator[Access]:
        if operation == "DescribeLogGroups":
            yield access("logs:DescribeLogGroups", "*")
            return
        group = fields["resourceArn"] if "resourceArn" in fields else arn("logs", f"log-group:{fields['logGroupName']}")
        yield access(f"logs:{operation}", group)
        if operation == "CreateLogGroup" and fields.get("tags"):
            yield access("logs:TagResource", group)

    def _s3(self, operation: str, fields: Json) -> Iterator[Access]:
        bucket = f"arn:aws:s3:::{fields['Bucket']}"
        if operation == "ListObjectsV2":
            yield access("s3:ListBucket", bucket)
            return
        if operation == "HeadObject":  # without s3:ListBucket, S3 answers 403 instead of 404 for a missing object
            yield access("s3:ListBucket", bucket)
        actions = {"HeadObject": "GetObject", "CreateMultipartUpload": "PutObject", "UploadPart": "PutObject"}
        yield access(f"s3:{actions.get(operation, operation)}", f"{bucket}/{fields['Key']}")

    def _ecs(self, operation: str, fields: Json) -> Iterator[Access]:
        yield access(f"ecs:{operation}", "*")
        for role in ("taskRoleArn", "executionRoleArn"):
            if role in fields:
                yield access("iam:PassRole", fields[role], iam__PassedToService="ecs-tasks.amazonaws.com")


def _row(operation: str, table: str, *keys: str) -> Access:
    return access(f"dynamodb:{operation}", arn("dynamodb", table), dynamodb__LeadingKeys=tuple(sorted(set(keys))))


def _written(request: Json) -> Json:
    fields: Json = request["PutRequest"]["Item"] if "PutRequest" in request else request["DeleteRequest"]["Key"]
    return fields
