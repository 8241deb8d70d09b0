"""Starts and stops the ECS tasks of container steps, and reads the outcomes of stopped tasks.

Requests for the same attempt are identical and have the same client token. ECS recognises a repeated request by that,
so a redelivered message does not start a second task.

A container reads the input from S3 and writes a report there, under a key that is derived from the attempt's token. It
uses the credentials of the task role, which ECS renews while the task runs. Presigned URLs would need no permissions
for that role, but they expire with the credentials that signed them. A Lambda's credentials last for some hours
(AWS documents no number), and a step may run for days. Presigned URLs would also differ between requests.
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

FOLDER = "inputs"  # a prefix in the bucket; a lifecycle rule deletes old objects
_LARGEST_REPORT = 1024 * 1024  # bytes; the adapter writes at most 360 KiB
_NO_CLUSTER = "this environment has no cluster for containers; deploy it with containers, or use runtime lambda"

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
_TEMPORARY_WORDS = (*_BUSY_WORDS, "unable to assume the role")  # the role may be new: IAM takes time to propagate


class NotStarted(Exception):
    """A request to ECS or S3 failed, for a reason that may be temporary. The task may have started."""


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
        """Starts the attempt's task; returns the ARN. Repeated calls start it once.

        Raises Busy, NotStarted, NeverStarts.
        """
        if not self._resources.cluster:
            raise NeverStarts(_NO_CLUSTER)
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
        client_token = _digest("task", f"{run_id}/{step_id}/{attempt}")
        return self._run_task(run_id, client_token, target, variables)

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
            return _already_started(error) or _raise_start_error(error)
        except BotoCoreError as error:
            raise NotStarted(f"ECS cannot be reached: {error}") from error
        if answer.get("failures"):
            failure = answer["failures"][0]
            reason = " ".join(filter(None, (failure.get("reason"), failure.get("detail"))))
            if failure.get("reason") in ("MISSING", "INACTIVE"):
                raise NeverStarts(f"ECS cannot find {failure.get('arn')}: {reason}")
            raise Busy(f"ECS has no capacity for the task: {reason}")
        arn: str = answer["tasks"][0]["taskArn"]
        return arn

    def _network(self) -> dict[str, Any]:
        return {
            "awsvpcConfiguration": {
                "subnets": list(self._resources.subnets),
                "securityGroups": list(self._resources.security_groups),
                # Without a public address, a task in a public subnet cannot reach ECR and S3.
                "assignPublicIp": "ENABLED",
            }
        }

    # --- stopping ----------------------------------------------------------------------------------------------------

    def stop(self, run_id: str, step_id: str | None = None, attempt: int | None = None) -> None:
        """Stops the tasks of a run, of a step or of an attempt. Does nothing if there are none. Raises ClientError."""
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
                except ecs.exceptions.InvalidParameterException:  # it ended some time ago
                    continue

    # --- reading -----------------------------------------------------------------------------------------------------

    def outcome_of_stopped_task(self, event: dict[str, Any], now: int) -> TaskOutcome | None:
        """The outcome of the attempt that a stopped task ran. `event`: the event from ECS; `now`: ms since the epoch.

        None if the task is not a step's, still runs, or was stopped by Stepwell.
        """
        task = StoppedTask(event["detail"])
        if task.name is None or not task.is_stopped:
            return None
        return task.outcome(self._report(task.name["key"]), now)

    def _report(self, key: str) -> Any:
        """The adapter's report; None if there is none, or it is not JSON."""
        s3 = client("s3")
        try:
            found = s3.get_object(Bucket=self._resources.bucket, Key=f"{key}.out.json")
        except s3.exceptions.NoSuchKey:
            return None
        try:
            return orjson.loads(found["Body"].read(_LARGEST_REPORT))
        except orjson.JSONDecodeError:
            return None


def _digest(purpose: str, text: str) -> str:
    return hashlib.blake2b(f"{purpose}/{text}".encode(), digest_size=16).hexdigest()


def _started_by(run_id: str) -> str:
    return f"stepwell/{run_id}"


def _pairs(variables: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in variables.items()]


def _already_started(error: ClientError) -> str | None:
    """The ARN of the task that an earlier request started; None if the error has another cause.

    ECS reports a conflict if the requests differ, because the environment was deployed between them.
    """
    if error.response["Error"]["Code"] != "ConflictException":
        return None
    tasks: list[str] = error.response.get("resourceIds") or ["started before"]
    return tasks[0]


def _raise_start_error(error: ClientError) -> str:
    code, message = error.response["Error"]["Code"], str(error.response["Error"].get("Message", ""))
    text = f"{code} {message}".lower()
    if any(words in text for words in _BUSY_WORDS):
        raise Busy(f"{code}: {message}") from error
    if code in _FINAL_CODES and not any(words in text for words in _TEMPORARY_WORDS):
        raise NeverStarts(f"ECS does not start the task: {message}") from error
    raise NotStarted(f"{code}: {message}") from error
