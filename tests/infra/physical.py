"""Resolves the references of a template to names, ARNs and texts, as CloudFormation does at deployment.

`Ref` and `Fn::GetAtt` follow the documentation of each resource type, and fail for types that are not listed here.
"""

from __future__ import annotations

import json
from typing import Any

ACCOUNT, REGION, PARTITION = "123456789012", "us-east-1", "aws"
PSEUDO = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Region": REGION,
    "AWS::Partition": PARTITION,
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::StackName": "Stepwell",
}
NAMED_BY_REF = (  # `Ref` is the name
    "AWS::Lambda::Function",
    "AWS::DynamoDB::Table",
    "AWS::Events::EventBus",
    "AWS::ApiGatewayV2::Api",
    "AWS::S3::Bucket",
    "AWS::IAM::Role",
    "AWS::Logs::LogGroup",
    "AWS::ECR::Repository",
    "AWS::ECS::Cluster",
)


class Physical:
    """The deployed resources of one template. `value` resolves an expression in the template."""

    def __init__(self, template: dict[str, Any]) -> None:
        self.resources: dict[str, Any] = template["Resources"]

    def of_type(self, kind: str) -> dict[str, dict[str, Any]]:
        return {id: item.get("Properties", {}) for id, item in self.resources.items() if item["Type"] == kind}

    def value(self, expression: Any) -> Any:
        """A text, or the same structure with texts in it."""
        if isinstance(expression, list):
            return [self.value(one) for one in expression]
        if not isinstance(expression, dict):
            return expression
        match expression:
            case {"Ref": name}:
                return PSEUDO.get(name) or self.ref(name)
            case {"Fn::GetAtt": [name, attribute]}:
                return self.attribute(name, attribute)
            case {"Fn::Join": [separator, parts]}:
                return str(separator).join(self.value(part) for part in self.value(parts))
            case {"Fn::Split": [separator, text]}:
                return self.value(text).split(separator)
            case {"Fn::Select": [index, parts]}:
                return self.value(parts)[int(index)]
        return {key: self.value(one) for key, one in expression.items()}

    def ref(self, id: str) -> str:
        kind = self.resources[id]["Type"]
        match kind:
            case "AWS::SQS::Queue":
                return f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{id}"
            case "AWS::SNS::Topic":
                return self.arn(id)
            case "AWS::Events::Rule":
                # https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-resource-events-rule.html
                bus = self._bus_of_rule(id)
                return f"{bus}|{id}" if bus else id
        assert kind in NAMED_BY_REF, f"what is the Ref of {kind}?"
        return id

    def attribute(self, id: str, attribute: str) -> str:
        kind = self.resources[id]["Type"]
        if (kind, attribute) == ("AWS::SQS::Queue", "QueueName"):
            return id
        assert attribute == "Arn" or (kind, attribute) == ("AWS::SNS::Topic", "TopicArn"), (
            f"what is {kind}.{attribute}?"
        )
        return self.arn(id)

    def arn(self, id: str) -> str:
        if self.resources[id]["Type"] == "AWS::Events::Rule":
            path = "/".join(filter(None, ("rule", self._bus_of_rule(id), id)))
            return f"arn:{PARTITION}:events:{REGION}:{ACCOUNT}:{path}"
        service, resource = {
            "AWS::SQS::Queue": ("sqs", id),
            "AWS::SNS::Topic": ("sns", id),
            "AWS::Lambda::Function": ("lambda", f"function:{id}"),
            "AWS::DynamoDB::Table": ("dynamodb", f"table/{id}"),
            "AWS::Events::EventBus": ("events", f"event-bus/{id}"),
            "AWS::ECS::Cluster": ("ecs", f"cluster/{id}"),
            "AWS::Logs::LogGroup": ("logs", f"log-group:{id}:*"),
            "AWS::S3::Bucket": ("s3", id),
            "AWS::IAM::Role": ("iam", f"role/{id}"),
        }[self.resources[id]["Type"]]
        place = {"s3": ":", "iam": f":{ACCOUNT}"}.get(service, f"{REGION}:{ACCOUNT}")
        return f"arn:{PARTITION}:{service}:{place}:{resource}"

    def _bus_of_rule(self, id: str) -> str:
        return str(self.value(self.resources[id]["Properties"].get("EventBusName", "")))

    def dashboard(self) -> list[dict[str, Any]]:
        """The widgets of the dashboards."""
        bodies = [self.value(item["DashboardBody"]) for item in self.of_type("AWS::CloudWatch::Dashboard").values()]
        return [widget for body in bodies for widget in json.loads(body)["widgets"]]
