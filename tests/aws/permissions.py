"""The permissions that IAM requires for a request to AWS, and whether policies grant them.

Requests and policy elements that this file does not know raise an error, so that nothing stays unchecked.
https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
Value = str | tuple[str, ...]

_TRANSACT = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem", "ConditionCheck": "ConditionCheckItem"}
_PATTERNS = (  # condition keys that may have several values, with wildcards
    ("ForAllValues:StringLike", "dynamodb:LeadingKeys"),
    ("StringLike", "kms:EncryptionContext:PARAMETER_ARN"),
)
_TABLE_ACTIONS = ("GetItem", "Query", "PutItem", "UpdateItem", "DeleteItem")
_BATCH_ACTIONS = ("BatchGetItem", "BatchWriteItem")


@dataclass(frozen=True, order=True)
class Access:
    """`context`: the condition keys that AWS sets for the request, each with one or more values."""

    action: str
    resource: str
    context: tuple[tuple[str, Value], ...] = ()


@dataclass(frozen=True)
class Account:
    region: str
    number: str

    def arn(self, service: str, name: str, separator: str = ":") -> str:
        return f"arn:aws:{service}:{self.region}:{self.number}{separator}{name}"

    def needs(self, service: str, operation: str, fields: Json) -> Iterator[Access]:
        """The permissions that a request needs. `its`: the parameters of the request, as for boto3."""
        match service, operation:
            case "dynamodb", _:
                yield from self._dynamodb(operation, fields)
            case "sqs", "SendMessage" | "SendMessageBatch":
                yield Access("sqs:SendMessage", self.arn("sqs", fields["QueueUrl"].rpartition("/")[2]))
            case "sqs", "ChangeMessageVisibilityBatch":  # AWS checks the permission of the single operation
                yield Access("sqs:ChangeMessageVisibility", self.arn("sqs", fields["QueueUrl"].rpartition("/")[2]))
            case "events", "PutEvents":
                for bus in {entry["EventBusName"] for entry in fields["Entries"]}:
                    yield Access("events:PutEvents", self.arn("events", f"event-bus/{bus}"))
            case "lambda", "Invoke":
                name = fields["FunctionName"]
                arn = name if name.startswith("arn:") else self.arn("lambda", f"function:{name}")
                yield Access("lambda:InvokeFunction", arn)
            case "s3", "GetObject" | "PutObject":
                yield Access(f"s3:{operation}", f"arn:aws:s3:::{fields['Bucket']}/{fields['Key']}")
            case "ssm", "GetParameters":
                for name in fields["Names"]:
                    yield Access("ssm:GetParameters", self.arn("ssm", f"parameter{name}"))
            case "ssm", "GetParameter" | "PutParameter" | "DeleteParameter":
                yield Access(f"ssm:{operation}", self.arn("ssm", f"parameter{fields['Name']}"))
            case "logs", "FilterLogEvents" | "GetLogEvents" | "CreateLogStream" | "PutLogEvents":
                stream = f"{fields['logGroupName']}:log-stream:{fields.get('logStreamName', '')}"
                yield Access(f"logs:{operation}", self.arn("logs", f"log-group:{stream}"))
            case "ecs", "RunTask" | "ListTasks" | "StopTask" | "DescribeTasks":
                yield from self._ecs(operation, fields)
            case _:
                raise NotImplementedError(f"what does {service}:{operation} need? teach it to this file")

    def _dynamodb(self, operation: str, fields: Json) -> Iterator[Access]:
        """Transactions need the permission of each operation in them; other batch requests need that of the batch
        operation.
        """
        if operation == "TransactWriteItems":
            for one in fields["TransactItems"]:
                ((kind, write),) = one.items()
                yield Access(f"dynamodb:{_TRANSACT[kind]}", self._table(write["TableName"]))
        elif operation in _BATCH_ACTIONS:
            for table, request in fields["RequestItems"].items():
                yield Access(f"dynamodb:{operation}", self._table(table), _leading_keys(operation, request))
        elif operation in _TABLE_ACTIONS:
            index = f"/index/{fields['IndexName']}" if "IndexName" in fields else ""
            yield Access(
                f"dynamodb:{operation}", self._table(fields["TableName"]) + index, _leading_keys(operation, fields)
            )
        else:
            raise NotImplementedError(f"what does dynamodb:{operation} need? teach it to this file")

    def _table(self, name: str) -> str:
        return self.arn("dynamodb", f"table/{name}")

    def _ecs(self, operation: str, fields: Json) -> Iterator[Access]:
        context = (("ecs:cluster", fields["cluster"]),)
        cluster = fields["cluster"].rpartition("/")[2]
        if operation == "RunTask":
            yield Access("ecs:RunTask", fields["taskDefinition"], context)
        elif operation == "ListTasks":
            yield Access("ecs:ListTasks", "*", context)
        else:
            for task in fields["tasks"] if operation == "DescribeTasks" else [fields["task"]]:
                name = task.rpartition("/")[2]
                yield Access(f"ecs:{operation}", self.arn("ecs", f"task/{cluster}/{name}"), context)

    def needs_of_key(self, access: Access, key: str) -> Iterator[Access]:
        """The permissions that a request needs on the KMS key that encrypts the resources.

        https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-key-management.html and the
        corresponding pages of DynamoDB, S3 and Systems Manager.
        """
        service, _, action = access.action.partition(":")
        match service, action:
            case ("dynamodb", _) | ("sqs", "ReceiveMessage") | ("s3", "GetObject"):
                actions = ["Decrypt"]
            case "ssm", "GetParameter" | "GetParameters":
                actions = ["Decrypt"]
            case "ssm", "PutParameter":
                actions = ["Encrypt"]
            case "sqs", "SendMessage":
                actions = ["Decrypt", "GenerateDataKey"]
            case "s3", "PutObject":
                actions = ["GenerateDataKey"]
            case _:
                actions = []
        through: tuple[tuple[str, str], ...] = (("kms:ViaService", f"{service}.{self.region}.amazonaws.com"),)
        if service == "ssm":
            through = (("kms:EncryptionContext:PARAMETER_ARN", access.resource), *through)
        yield from (Access(f"kms:{action}", key, through) for action in actions)

    def passes(self, role: str, service: str) -> Access:
        """Passing a role to a service needs this permission too."""
        return Access("iam:PassRole", role, (("iam:PassedToService", service),))


def _leading_keys(operation: str, fields: Json) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The partition keys in a request to the table or to the index.
    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html
    """
    match operation:
        case "GetItem" | "UpdateItem" | "DeleteItem":
            found = [fields["Key"]["pk"]["S"]]
        case "PutItem":
            found = [fields["Item"]["pk"]["S"]]
        case "BatchGetItem":
            found = [key["pk"]["S"] for key in fields["Keys"]]
        case "BatchWriteItem":
            writes = [next(iter(write.values())) for write in fields]
            found = [(write.get("Key") or write["Item"])["pk"]["S"] for write in writes]
        case "Query":
            named = re.match(r"[pg]k = (:\w+)", fields["KeyConditionExpression"])
            assert named, fields["KeyConditionExpression"]
            found = [fields["ExpressionAttributeValues"][named[1]]["S"]]
        case _:
            raise NotImplementedError(f"which partitions does dynamodb:{operation} name? teach it to this file")
    return (("dynamodb:LeadingKeys", tuple(sorted(set(found)))),)


# --- policies --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Condition:
    """A condition key and the values that it may have."""

    operator: str
    key: str
    values: tuple[str, ...]

    def holds(self, context: Mapping[str, Value]) -> bool:
        """`ForAllValues` is also true for a request without the key.
        https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-single-vs-multi-valued-context-keys.html
        """
        found = context.get(self.key)
        if self.operator == "ForAllValues:StringLike":
            return all(self._takes(value) for value in (found or ()))
        return isinstance(found, str) and self._takes(found)

    def unused(self, accesses: Iterable[Access]) -> list[str]:
        """The values that none of these requests needs."""
        asked = {value for access in accesses for value in _list(dict(access.context).get(self.key, ()))}
        return [value for value in self.values if not any(self._matches(value, one) for one in asked)]

    def _takes(self, found: str) -> bool:
        return any(self._matches(value, found) for value in self.values)

    def _matches(self, value: str, found: str) -> bool:
        return _matches(value, found) if self.operator.endswith("StringLike") else value == found


@dataclass(frozen=True, order=True)
class Grant:
    """One action on one resource pattern, with conditions."""

    action: str
    pattern: str
    conditions: tuple[Condition, ...] = ()

    def allows(self, access: Access) -> bool:
        return (
            access.action == self.action
            and _matches(self.pattern, access.resource)
            and all(condition.holds(dict(access.context)) for condition in self.conditions)
        )

    def surplus(self, accesses: Iterable[Access]) -> list[str]:
        """The parts of the grant that none of these requests needs: all of it, or some values of conditions."""
        used = [access for access in accesses if self.allows(access)]
        name = f"{self.action} on {self.pattern}"
        if not used:
            return [name]
        return [f"{name}, {condition.key} {value}" for condition in self.conditions for value in condition.unused(used)]


def grants(statements: Sequence[Json]) -> set[Grant]:
    """Everything that the statements of a role allow.

    Raises NotImplementedError for elements that are not used here.
    """
    return {
        Grant(action, pattern, tuple(sorted(_conditions(statement))))
        for statement in statements
        for action in _list(_only_allows(statement)["Action"])
        for pattern in _list(statement["Resource"])
    }


def _only_allows(statement: Json) -> Json:
    actions = _list(statement.get("Action", "*"))
    known = {"Sid", "Effect", "Action", "Resource", "Condition"}
    if statement["Effect"] != "Allow" or statement.keys() - known or any("*" in action for action in actions):
        raise NotImplementedError(f"what does this allow? {statement}")
    return statement


def _conditions(statement: Json) -> Iterator[Condition]:
    for operator, tests in statement.get("Condition", {}).items():
        for key, value in tests.items():
            condition = Condition(operator, key, tuple(_list(value)))
            is_exact = operator in ("StringEquals", "ArnEquals") and isinstance(value, str) and "*" not in value
            if not (is_exact or (operator, key) in _PATTERNS):
                raise NotImplementedError(f"what does this condition ask? {operator}: {tests}")
            yield condition


def _matches(pattern: str, resource: str) -> bool:
    """IAM patterns contain only the wildcards `*` (anything) and `?` (one character)."""
    expression = "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in pattern)
    return re.fullmatch(expression, resource, re.DOTALL) is not None


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
