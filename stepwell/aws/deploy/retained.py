"""Finds resources that CloudFormation has retained in the account and that nothing needs any more.

These are Lambdas and roles of steps that were removed from a stack (`stepwell.cdk.Functions`), and replaced versions of
the adapter's layers. A Lambda that is still part of a stack is never listed: a stack without one of its resources
cannot be updated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any

from botocore.exceptions import ClientError

from stepwell.aws import naming
from stepwell.aws.deploy.account import Account
from stepwell.aws.resources import Resources

Json = dict[str, Any]


class Retained:
    """`is_new`: whether something that changed at a time (ms since the epoch) is too young to be removed."""

    def __init__(self, resources: Resources, account: Account, is_new: Callable[[float], bool]) -> None:
        self._resources, self._account, self._is_new = resources, account, is_new
        pages = account.lambda_.get_paginator("list_functions").paginate(FunctionVersion="ALL")
        self._versions: list[Json] = [found for page in pages for found in page["Functions"]]

    def lambdas(self, needed: set[str]) -> list[str]:
        """The names of Lambdas that a stack made, but no stack contains and no version needs. `needed`: names or ARNs
        of Lambdas, from the targets of steps."""
        needed_names = {lambda_of(target) for target in needed}
        latest = {version["FunctionName"]: version for version in self._versions if version["Version"] == "$LATEST"}
        unneeded = [(name, fields) for name, fields in sorted(latest.items()) if name not in needed_names]
        return [name for name, fields in unneeded if self._is_removable(name, fields)]

    def _is_removable(self, name: str, fields: Json) -> bool:
        if not naming.is_function_name(self._resources.env, name) or self._is_new(_ms(fields["LastModified"])):
            return False
        tags = self._account.lambda_.list_tags(Resource=fields["FunctionArn"].removesuffix(":$LATEST"))["Tags"]
        is_of_stack = naming.FUNCTION_TAG in tags and naming.HASH_TAG not in tags
        return is_of_stack and tags.get(naming.ENV_TAG) == self._resources.env and not self._is_in_a_stack(name)

    def roles(self, gone: list[str]) -> list[str]:
        """The names of roles that only these Lambdas have and no stack contains. `gone`: Lambdas to remove."""
        used = {version["Role"] for version in self._versions if version["FunctionName"] not in gone}
        only = {version["Role"] for version in self._versions if version["FunctionName"] in gone} - used
        names = sorted(arn.rpartition("/")[2] for arn in only)
        return [name for name in names if self._is_role_of_environment(name) and not self._is_in_a_stack(name)]

    def roles_with_networks(self, gone: list[str]) -> set[str]:
        """The names of roles of those Lambdas in `gone` that are in a VPC.

        Lambda needs a role for up to 20 minutes after the function is deleted, to remove network interfaces. Otherwise
        the interfaces stay. So this prune keeps such a role, and the next one removes it:
        https://github.com/awslabs/aws-support-tools/pull/174
        """
        in_vpc = [version for version in self._versions if (version.get("VpcConfig") or {}).get("SubnetIds")]
        return {item["Role"].rpartition("/")[2] for item in in_vpc if item["FunctionName"] in gone}

    def _is_role_of_environment(self, name: str) -> bool:
        try:
            tags = self._account.iam.list_role_tags(RoleName=name)["Tags"]
        except self._account.iam.exceptions.NoSuchEntityException:
            return False
        values = {tag["Key"]: tag["Value"] for tag in tags}
        return values.get(naming.ENV_TAG) == self._resources.env and naming.FUNCTION_TAG in values

    def _is_in_a_stack(self, name: str) -> bool:
        """Whether a stack contains this resource. CloudFormation answers ValidationError if none does:
        https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_DescribeStackResources.html"""
        try:
            self._account.cloudformation.describe_stack_resources(PhysicalResourceId=name)
        except ClientError as error:
            if error.response["Error"]["Code"] == "ValidationError":
                return False
            raise
        return True

    def layers(self, gone: list[str]) -> Iterator[str]:
        """The ARNs of replaced versions of the layers that no Lambda uses, except Lambdas in `gone`."""
        used = {
            layer["Arn"]
            for version in self._versions
            if version["FunctionName"] not in gone
            for layer in version.get("Layers") or ()
        }
        for newest in sorted(set(self._resources.layers.values())):
            layer, number = newest.split(":")[6:]
            pages = self._account.lambda_.get_paginator("list_layer_versions").paginate(LayerName=layer)
            found = [version for page in pages for version in page["LayerVersions"]]
            found.sort(key=lambda version: int(version["Version"]))
            for version, next_ in pairwise(found):
                is_old = version["Version"] < int(number)
                arn = version["LayerVersionArn"]
                if is_old and arn not in used and not self._is_new(_ms(next_["CreatedDate"])):
                    yield arn


def lambda_of(target: str) -> str:
    """The Lambda's name in a step's target, which is a name or an ARN."""
    return target.split(":")[6] if target.startswith("arn:") else target


def _ms(time: str) -> float:
    return datetime.fromisoformat(time).timestamp() * 1000
