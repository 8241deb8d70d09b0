"""Steps that are containers: tasks of ECS on Fargate, which are started, stopped, and read once they have stopped.

One rule: the same attempt asks for the same task, word for word, so that ECS recognises a repeated request by its
client token, and a message that comes again starts nothing twice.

A container reads its input from S3 and writes its report there, at a key that nobody can guess without the attempt's
token. It does so with the credentials of its task role, which ECS renews as long as the task runs. Presigned URLs
would spare that role its rights on the bucket, but they end with the credentials that signed them: those of a Lambda
last some hours, nobody says how many, while a step may run for days. They would also differ from request to request.
"""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
from botocore.exceptions import BotoCoreError, ClientError

from stepwell.aws.clients import client
from stepwell.aws.resources import Resources
from stepwell.aws.steps.container_names import STEP
from stepwell.aws.steps.errors import Busy, NeverStarts
from stepwell.aws.steps.stopped_tasks import STOPPED_BY_US, StoppedTask, TaskOutcome

FOLDER = "inputs"  # in the bucket; its lifecycle deletes what is old
_LARGEST_REPORT = 1024 * 1024  # the adapter's have at most 360 KiB
_CLUSTER_LACKS = "this environment has no cluster for containers; deploy it with containers, or use runtime lambda"

_FINAL_CODES = frozenset(
    {
        "ClientException",
        "InvalidParameterException",
        "ClusterNotFoundException",
        "PlatformTaskDefinitionIncompatibilityException",
        "PlatformUnknownException",
        "UnsupportedFeatureException",
        "BlockedException",
    }
)
_BUSY_WORDS = ("limit", "capacity", "try again", "rate exceeded", "throttl")
_PASSING_WORDS = (*_BUSY_WORDS, "unable to assume the role")  # while IAM propagates


class NotStarted(Exception):
    """Something is wrong with ECS or S3, or on the way there; it may be right when it is asked again."""


class Containers:
    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    # --- starting ----------------------------------------------------------------------------------------------------

    def start(
        self,
        *,
        run_id: str,
        step_id: str,
        attempt: int,
        input: bytes,
        token: str,
        target: dict[str, Any],
        timeout_ms: int,
    ) -> str:
        """Start the attempt's task; its ARN. Asking again is harmless. Raises Busy, NotStarted, NeverStarts."""
        if not self._resources.cluster:
            raise NeverStarts(_CLUSTER_LACKS)
        key = f"{FOLDER}/{run_id}/{step_id}/{attempt}-{_digest('key', token)}"
        name = {"run": run_id, "step": step_id, "attempt": attempt, "token": token, "key": key}
        variables = {
            "STEPWELL_INPUT_URL": f"s3://{self._resources.bucket}/{key}.json",
            "STEPWELL_REPORT_URL": f"s3://{self._resources.bucket}/{key}.out.json",
            "STEPWELL_TIMEOUT_MS": str(timeout_ms),
            "STEPWELL_ATTEMPT": orjson.dumps(name).decode(),
        }
        try:
            client("s3").put_object(Bucket=self._resources.bucket, Key=f"{key}.json", Body=input)
        except (ClientError, BotoCoreError) as error:
            raise NotStarted(f"the input cannot be stored: {error}") from error
        token_of_request = _digest("task", f"{run_id}/{step_id}/{attempt}")
        return self._run_task(run_id, token_of_request, target, variables)

    def _run_task(self, run_id: str, client_token: str, target: dict[str, Any], variables: dict[str, str]) -> str:
        try:
            answer = client("ecs").run_task(
                cluster=self._resources.cluster,
                taskDefinition=target["ecs"],
                clientToken=client_token,
                startedBy=_started_by(run_id),
                overrides={"containerOverrides": [{"name": STEP, "environment": _pairs(variables)}]},
                networkConfiguration=self._network(),
                capacityProviderStrategy=[{"capacityProvider": self._resources.capacity, "weight": 1}],
            )
        except ClientError as error:
            return _already_started(error) or _refuse(error)
        except BotoCoreError as error:
            raise NotStarted(f"ECS cannot be reached: {error}") from error
        if answer.get("failures"):
            failure = answer["failures"][0]
            reason = " ".join(filter(None, (failure.get("reason"), failure.get("detail"))))
            if failure.get("reason") in ("MISSING", "INACTIVE"):
                raise NeverStarts(f"ECS cannot find {failure.get('arn')}: {reason}")
            raise Busy(f"ECS has no room for the task: {reason}")
        arn: str = answer["tasks"][0]["taskArn"]
        return arn

    def _network(self) -> dict[str, Any]:
        return {
            "awsvpcConfiguration": {
                "subnets": list(self._resources.subnets),
                "securityGroups": list(self._resources.security_groups),
                # Without an address of its own a task in a public subnet reaches neither ECR nor S3.
                "assignPublicIp": "ENABLED",
            }
        }

    # --- stopping ----------------------------------------------------------------------------------------------------

    def stop(self, run_id: str, step_id: str | None = None, attempt: int | None = None) -> None:
        """Stop all tasks of a run, or those of one attempt. Harmless if there are none; raises ClientError."""
        if not self._resources.cluster:
            return
        ecs, cluster = client("ecs"), self._resources.cluster
        for page in ecs.get_paginator("list_tasks").paginate(cluster=cluster, startedBy=_started_by(run_id)):
            tasks = page["taskArns"]
            if step_id is not None and tasks:
                described = ecs.describe_tasks(cluster=cluster, tasks=tasks)["tasks"]
                tasks = [task["taskArn"] for task in described if StoppedTask(task).is_of(step_id, attempt)]
            for task in tasks:
                try:
                    ecs.stop_task(cluster=cluster, task=task, reason=STOPPED_BY_US)
                except ecs.exceptions.InvalidParameterException:  # it has ended, and is forgotten
                    continue

    # --- reading -----------------------------------------------------------------------------------------------------

    def outcome_of_stopped_task(self, event: dict[str, Any], now: int) -> TaskOutcome | None:
        """How an attempt ended, by EventBridge's event that its task did. `now`: ms since the epoch.

        None if there is nothing to say: the task is not one of ours, still runs, or was stopped by us.
        """
        task = StoppedTask(event["detail"])
        if task.name is None or not task.is_stopped:
            return None
        return task.outcome(self._report(task.name["key"]), now)

    def _report(self, key: str) -> Any:
        """What the adapter wrote; None if it wrote nothing that can be read."""
        s3 = client("s3")
        try:
            found = s3.get_object(Bucket=self._resources.bucket, Key=f"{key}.out.json")
        except s3.exceptions.NoSuchKey:
            return None
        try:
            return orjson.loads(found["Body"].read(_LARGEST_REPORT))
        except orjson.JSONDecodeError:
            return None


def _digest(what: str, text: str) -> str:
    return hashlib.blake2b(f"{what}/{text}".encode(), digest_size=16).hexdigest()


def _started_by(run_id: str) -> str:
    return f"stepwell/{run_id}"


def _pairs(variables: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in variables.items()]


def _already_started(error: ClientError) -> str | None:
    """The task that an earlier request started; this one differs if the environment was deployed between them."""
    if error.response["Error"]["Code"] != "ConflictException":
        return None
    tasks: list[str] = error.response.get("resourceIds") or ["started before"]
    return tasks[0]


def _refuse(error: ClientError) -> str:
    code, message = error.response["Error"]["Code"], str(error.response["Error"].get("Message", ""))
    text = f"{code} {message}".lower()
    if any(words in text for words in _BUSY_WORDS):
        raise Busy(f"{code}: {message}") from error
    if code in _FINAL_CODES and not any(words in text for words in _PASSING_WORDS):
        raise NeverStarts(f"ECS does not start the task: {message}") from error
    raise NotStarted(f"{code}: {message}") from error
