"""`stepwell functions prune`: removes AWS resources of steps that no version needs any more.

They were made by pushes, or left behind by stacks. A resource stays in case of doubt:

- These versions need resources: the live version, the version before it (for `rollback`), a canary, versions with open
  runs, and versions replaced within the last hour.
- A resource that is younger than an hour may belong to a push that is still running.
- Names alone do not identify an environment: `stepwell-a-` is also a prefix of the names of environment `a-b`. So tags
  are checked too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from stepwell.aws import naming
from stepwell.aws.deploy.account import Account
from stepwell.aws.deploy.needed import Needed, read_needed
from stepwell.aws.deploy.oci import is_ecr
from stepwell.aws.deploy.push import log_group_arn
from stepwell.aws.deploy.retained import Retained
from stepwell.aws.deploy.roles import delete_role
from stepwell.aws.deploy.values import parameters_below
from stepwell.aws.functions.versions import Versions
from stepwell.aws.resources import Resources

GRACE_MS = 3_600_000  # routers start runs of a replaced version for some seconds more; a push may take minutes
_DAY_MS = 86_400_000
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Unneeded:
    """A resource to remove. `users`: the functions and versions that ran on it."""

    kind: str
    name: str
    users: tuple[tuple[str, int], ...] = ()

    def as_json(self) -> Json:
        return {"action": "remove", "kind": self.kind, "name": self.name}


@dataclass(frozen=True, slots=True)
class Prune:
    """Finds and removes what no version needs.

    `grace_ms`: resources younger than this stay. `and_logs`: removes log groups together with their Lambda or function;
    otherwise they stay until their logs have expired.
    """

    resources: Resources
    account: Account
    now: int  # ms since the epoch
    grace_ms: int = GRACE_MS
    and_logs: bool = False

    def plan(self) -> list[Unneeded]:
        """The resources that nothing needs, in an order in which they can be removed."""
        needed = read_needed(self.resources, self.now - self.grace_ms)
        lambdas, code = self._lambdas(needed)
        retained = Retained(self.resources, self.account, self._is_new)
        left = retained.lambdas(needed.lambdas)
        lambdas += left
        roles = {*self._roles(needed), *retained.roles(left)} - retained.roles_with_networks(lambdas)
        return [
            *(Unneeded("lambda", name, tuple(needed.users_of(name))) for name in lambdas),
            *(Unneeded("task definition", arn, tuple(needed.users.get(arn, ()))) for arn in self._tasks(needed)),
            *(Unneeded("image", digest) for digest in self._images(needed)),
            *(Unneeded("log group", name) for name in self._log_groups(set(lambdas))),
            *(Unneeded("log group", name) for name in self._task_log_groups(needed)),
            *(Unneeded("parameter", name) for name in self._parameters(needed)),
            *(Unneeded("role", name) for name in sorted(roles)),
            *(Unneeded("layer", arn) for arn in retained.layers(lambdas)),
            *(Unneeded("code", key) for key in self._code(code)),
        ]

    def apply(self, unneeded: Unneeded) -> None:
        """Removes a resource; does nothing if it is gone. The versions that ran on it are marked first, so that they
        cannot go live any more."""
        account, name = self.account, unneeded.name
        for function_id, number in unneeded.users:
            Versions(self.resources.table).mark_gone(function_id, number)
        match unneeded.kind:
            case "lambda":
                _unless_gone(account.lambda_, "ResourceNotFoundException", "delete_function", FunctionName=name)
            case "task definition":
                account.ecs.deregister_task_definition(taskDefinition=name)
            case "image":
                image = {"imageDigest": name}
                account.ecr.batch_delete_image(repositoryName=self._repository, imageIds=[image])
            case "log group":
                _unless_gone(account.logs, "ResourceNotFoundException", "delete_log_group", logGroupName=name)
            case "parameter":
                _unless_gone(account.ssm, "ParameterNotFound", "delete_parameter", Name=name)
            case "role":
                delete_role(account.iam, name)
            case "layer":
                layer, version = name.split(":")[6:]
                account.lambda_.delete_layer_version(LayerName=layer, VersionNumber=int(version))
            case "code":
                account.s3.delete_object(Bucket=self.resources.bucket, Key=name)

    # --- reading the account -----------------------------------------------------------------------------------------

    def _lambdas(self, needed: Needed) -> tuple[list[str], set[str]]:
        """The Lambdas to remove, and the code keys of the Lambdas that stay."""
        unneeded, code = [], set()
        for page in self.account.lambda_.get_paginator("list_functions").paginate():
            for found in page["Functions"]:
                name = found["FunctionName"]
                if not naming.is_function_name(self.resources.env, name):
                    continue
                tags = self.account.lambda_.list_tags(Resource=found["FunctionArn"])["Tags"]
                if tags.get(naming.ENV_TAG) != self.resources.env or naming.HASH_TAG not in tags:
                    continue
                changed_at = datetime.fromisoformat(found["LastModified"]).timestamp() * 1000
                if name in needed.lambdas or self._is_new(changed_at):
                    code.add(tags.get(naming.CODE_TAG, ""))
                else:
                    unneeded.append(name)
        return unneeded, code

    def _tasks(self, needed: Needed) -> Iterator[str]:
        if not self.resources.cluster:
            return
        ecs = self.account.ecs
        prefix = naming.function_prefix(self.resources.env)
        for page in ecs.get_paginator("list_task_definitions").paginate(status="ACTIVE"):
            for arn in page["taskDefinitionArns"]:
                if arn.rpartition("/")[2].startswith(prefix) and arn not in needed.tasks:
                    found = ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"]
                    is_of_environment = self._is_role_arn_of_environment(found.get("taskRoleArn", ""))
                    if is_of_environment and not self._is_new(found["registeredAt"].timestamp() * 1000):
                        yield arn

    def _is_role_arn_of_environment(self, arn: str) -> bool:
        """Whether the role belongs to this environment, not to one whose name has the same beginning."""
        name = arn.rpartition("/")[2]
        return name.startswith(naming.role_prefix(self.resources.env)) and self._is_role_of_environment(name)

    def _is_role_of_environment(self, name: str) -> bool:
        try:
            tags = self.account.iam.list_role_tags(RoleName=name)["Tags"]
        except self.account.iam.exceptions.NoSuchEntityException:
            return False
        return {"Key": naming.ENV_TAG, "Value": self.resources.env} in tags

    def _log_groups(self, removed: set[str]) -> Iterator[str]:
        """The log groups whose Lambda is gone and whose logs have expired."""
        logs, prefix = self.account.logs, naming.log_group(naming.function_prefix(self.resources.env))
        for page in logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=prefix):
            for group in page["logGroups"]:
                name = group["logGroupName"]
                function = name.removeprefix(naming.log_group(""))
                if not naming.is_function_name(self.resources.env, function) or self._is_new(group["creationTime"]):
                    continue
                is_orphan = function in removed or not self._exists(function)
                if is_orphan and not self._has_logs(name) and self._is_log_group_of_environment(name):
                    yield name

    def _task_log_groups(self, needed: Needed) -> Iterator[str]:
        """The log groups of containers of functions without a needed version."""
        prefix = naming.task_log_group(self.resources.env, "")
        for page in self.account.logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=prefix):
            for group in page["logGroups"]:
                name = group["logGroupName"]
                if name.removeprefix(prefix) in needed.functions or self._is_new(group["creationTime"]):
                    continue
                if not self._has_logs(name) and self._is_log_group_of_environment(name):
                    yield name

    @property
    def _repository(self) -> str:
        return self.resources.repository.partition("/")[2]

    def _images(self, needed: Needed) -> Iterator[str]:
        """The digests of images that no needed task definition runs."""
        if not is_ecr(self.resources.repository.partition("/")[0]):
            return
        needed_images = {image for arn in needed.tasks for image in self._images_of(arn)}
        for page in self.account.ecr.get_paginator("describe_images").paginate(repositoryName=self._repository):
            for image in page["imageDetails"]:
                names = {f"{self.resources.repository}:{tag}" for tag in image.get("imageTags", ())}
                names.add(f"{self.resources.repository}@{image['imageDigest']}")
                if not names & needed_images and not self._is_new(image["imagePushedAt"].timestamp() * 1000):
                    yield image["imageDigest"]

    def _images_of(self, arn: str) -> set[str]:
        try:
            found = self.account.ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"]
        except self.account.ecs.exceptions.ClientException:
            return set()  # it is gone
        return {container["image"] for container in found["containerDefinitions"]}

    def _is_log_group_of_environment(self, group: str) -> bool:
        tags = self.account.logs.list_tags_for_resource(resourceArn=log_group_arn(self.resources, group))["tags"]
        return bool(tags.get(naming.ENV_TAG) == self.resources.env)

    def _exists(self, function: str) -> bool:
        try:
            self.account.lambda_.get_function_configuration(FunctionName=function)
        except self.account.lambda_.exceptions.ResourceNotFoundException:
            return False
        return True

    def _has_logs(self, group: str) -> bool:
        """Whether the group has logs that have not expired."""
        if self.and_logs:
            return False
        newest = self.account.logs.describe_log_streams(
            logGroupName=group, orderBy="LastEventTime", descending=True, limit=1
        )["logStreams"]
        expired_at = self.now - self.resources.retention_days * _DAY_MS
        return any(stream.get("lastEventTimestamp", stream["creationTime"]) > expired_at for stream in newest)

    def _parameters(self, needed: Needed) -> Iterator[str]:
        for found in parameters_below(self.account.ssm, naming.dotenv_prefix(self.resources.env)):
            if found.name not in needed.parameters and not self._is_new(found.changed_at):
                yield found.name

    def _roles(self, needed: Needed) -> Iterator[str]:
        needed_roles = {naming.role_name(self.resources.env, function_id) for function_id in needed.functions}
        prefix = naming.role_prefix(self.resources.env)
        for page in self.account.iam.get_paginator("list_roles").paginate():
            for role in page["Roles"]:
                name = role["RoleName"]
                if name.startswith(prefix) and name not in needed_roles:
                    if not self._is_new(role["CreateDate"].timestamp() * 1000) and self._is_role_of_environment(name):
                        yield name

    def _code(self, needed: set[str]) -> Iterator[str]:
        pages = self.account.s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.resources.bucket, Prefix=naming.CODE_PREFIX
        )
        for page in pages:
            for found in page.get("Contents", ()):
                if found["Key"] not in needed and not self._is_new(found["LastModified"].timestamp() * 1000):
                    yield found["Key"]

    def _is_new(self, changed_at: float) -> bool:
        return changed_at > self.now - self.grace_ms


def _unless_gone(service: Any, gone: str, call: str, **arguments: Any) -> None:
    try:
        getattr(service, call)(**arguments)
    except getattr(service.exceptions, gone):
        pass
