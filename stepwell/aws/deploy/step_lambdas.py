"""Reads a step's Lambda from the account, and creates or updates it.

Every change may be repeated after a failure. Settings that are already right are left alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from stepwell.aws.deploy.activity import FAILED, PENDING, Activity, Log, explained
from stepwell.aws.deploy.packaging import VALUES_HASH, StepLambda
from stepwell.aws.naming import CODE_TAG, ENV_TAG, FUNCTION_TAG, HASH_TAG
from stepwell.aws.resources import Resources

Json = dict[str, Any]
Sleep = Callable[[float], None]
_PROPAGATION_S = 60.0  # a new role usually works everywhere after some 10 s

CREATE, CONFIGURATION, VALUES, DESTINATIONS, RECURSION, ACTIVATION, CONCURRENCY = (
    "create", "configuration", "values", "destinations", "recursion", "activation", "concurrency",
)  # fmt: skip
_SMALLEST_STORAGE = 512  # MB of /tmp
_DEFAULTS = {"EphemeralStorage": {"Size": _SMALLEST_STORAGE}, "TracingConfig": {"Mode": "PassThrough"}}


class NoLayer(Exception):
    """The environment has no adapter for this architecture."""


class DestinationInUse(Exception):
    """A Lambda that a step names by ARN already sends its results somewhere else."""


@dataclass(frozen=True, slots=True)
class LambdaState:
    """A Lambda as AWS describes it."""

    configuration: Json
    destinations: Json | None  # None: it has no configuration for asynchronous invocations
    recursion: str
    concurrency: int = 0  # reserved instances


def configuration(step_lambda: StepLambda, resources: Resources, role: str) -> Json:
    """The Lambda's configuration, without the hash of the values in SSM. Raises NoLayer."""
    layer = resources.layers.get(step_lambda.architecture)
    if layer is None:
        raise NoLayer(f"this environment has no adapter for {step_lambda.architecture}; run `cdk deploy` again")
    found: Json = {
        "Runtime": step_lambda.runtime,
        "Handler": step_lambda.handler,
        "MemorySize": step_lambda.memory,
        "Timeout": step_lambda.timeout_s,
        "Role": role,
        "Layers": [*step_lambda.layers, layer],  # files of later layers replace earlier ones, so the adapter is last
        "Environment": {"Variables": step_lambda.variables(resources.env)},
        "Description": f"Step {step_lambda.step_id} of {step_lambda.function_id}",
        "EphemeralStorage": {"Size": step_lambda.ephemeral_storage or _SMALLEST_STORAGE},
        "TracingConfig": {"Mode": "Active" if is_traced(step_lambda, resources) else "PassThrough"},
    }
    if step_lambda.vpc:
        found["VpcConfig"] = {
            "SubnetIds": list(resources.step_subnets),
            "SecurityGroupIds": list(resources.step_security_groups),
        }
    return found


def is_traced(step_lambda: StepLambda, resources: Resources) -> bool:
    """Whether X-Ray traces the Lambda: the step's setting, or else the environment's."""
    return resources.tracing if step_lambda.tracing is None else step_lambda.tracing


def destinations(resources: Resources) -> Json:
    """The configuration of asynchronous invocations. Lambda does not retry, as the engine does."""
    queue = {"Destination": resources.outcomes_queue_arn}
    return {
        "MaximumRetryAttempts": 0,
        "MaximumEventAgeInSeconds": resources.event_age_s,
        "DestinationConfig": {"OnSuccess": queue, "OnFailure": queue},
    }


def read_lambda(client: Any, name: str, qualifier: str | None = None) -> LambdaState | None:
    which = {"FunctionName": name, **({"Qualifier": qualifier} if qualifier else {})}
    try:
        found = client.get_function_configuration(**which)
    except client.exceptions.ResourceNotFoundException:
        return None
    try:
        invoke = client.get_function_event_invoke_config(**which)
    except client.exceptions.ResourceNotFoundException:
        invoke = None
    recursion = client.get_function_recursion_config(FunctionName=name)["RecursiveLoop"]
    return LambdaState(found, invoke, recursion, _reserved(client, name))


def _reserved(client: Any, name: str) -> int:
    """The number of reserved instances. 0 for an ARN: Stepwell does not manage the concurrency of such a Lambda."""
    if name.startswith("arn:"):
        return 0
    reserved: int = client.get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions", 0)
    return reserved


def lambda_changes(
    state: LambdaState | None, wanted: Json, values: str | None, resources: Resources
) -> tuple[str, ...]:
    """The kinds of changes that the Lambda needs: CREATE, CONFIGURATION and so on; empty if it is right.

    `values`: the hash of the values in SSM; `""` if it is not known yet, None if the Lambda has no values. A Lambda
    whose creation failed never becomes usable, so it is created again:
    https://docs.aws.amazon.com/lambda/latest/dg/functions-states.html
    """
    if state is None or state.configuration.get("State") == FAILED:
        return (CREATE,)
    current = state.configuration
    variables = dict(current.get("Environment", {}).get("Variables", {}))
    hashed = variables.pop(VALUES_HASH, None)
    actual = {name: current.get(name, _DEFAULTS.get(name)) for name in wanted}
    actual["Layers"] = [layer["Arn"] for layer in current.get("Layers") or ()]
    actual["Environment"] = {"Variables": variables}
    if "VpcConfig" in wanted:
        actual["VpcConfig"] = _ids(current.get("VpcConfig") or {})
        wanted = {**wanted, "VpcConfig": _ids(wanted["VpcConfig"])}
    found = []
    if actual != wanted or current.get("LastUpdateStatus") == FAILED:
        found.append(CONFIGURATION)
    elif current.get("State") == PENDING:  # an interrupted push did not wait for it
        found.append(ACTIVATION)
    if hashed != values:
        found.append(VALUES)
    if state.concurrency != resources.step_concurrency:
        found.append(CONCURRENCY)
    return (*found, *invocation_changes(state, resources))


def _ids(network: Json) -> Json:
    """The ids of a network, sorted: Lambda returns them in any order."""
    return {name: sorted(network.get(name, ())) for name in ("SubnetIds", "SecurityGroupIds")}


def invocation_changes(state: LambdaState, resources: Resources) -> tuple[str, ...]:
    wanted, current = destinations(resources), state.destinations or {}
    found = []
    if any(current.get(name) != value for name, value in wanted.items()):
        found.append(DESTINATIONS)
    if state.recursion != "Allow":
        found.append(RECURSION)
    return tuple(found)


def check_free(arn: str, state: LambdaState, resources: Resources) -> None:
    """Raises DestinationInUse if the Lambda already sends its results somewhere else."""
    config = (state.destinations or {}).get("DestinationConfig", {})
    in_use = {item["Destination"] for item in config.values() if item.get("Destination")} - {
        resources.outcomes_queue_arn
    }
    if in_use:
        targets = ", ".join(sorted(in_use))
        raise DestinationInUse(f"{arn} already sends its results to {targets}; use the ARN of an alias for Stepwell")


# --- changing it -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Changer:
    client: Any
    resources: Resources
    sleep: Sleep = time.sleep
    log: Log = lambda line: None  # receives progress messages for people

    def make(self, step_lambda: StepLambda, wanted: Json, values: str | None, changes: tuple[str, ...]) -> None:
        name = step_lambda.name(self.resources.env)
        full = _with_values(wanted, values)
        activity = Activity(self.client, name, step_lambda.vpc, self.sleep, self.log)
        if CREATE in changes:
            with explained(name, step_lambda.vpc):
                self._create(name, step_lambda, full)
            activity.wait()
        elif CONFIGURATION in changes or VALUES in changes:
            activity.wait(also_failed=True)
            with explained(name, step_lambda.vpc):
                self.client.update_function_configuration(FunctionName=name, **full)
            activity.wait()
        elif ACTIVATION in changes:
            activity.wait()
        if CONCURRENCY in changes or (CREATE in changes and self.resources.step_concurrency):
            self._reserve(name)
        self.invocation(name, None, changes)

    def _reserve(self, name: str) -> None:
        """Reserves the environment's instances per step, which is also the step's limit; or removes the reservation.
        https://docs.aws.amazon.com/lambda/latest/dg/configuration-concurrency.html"""
        if most := self.resources.step_concurrency:
            self.client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=most)
        else:
            self.client.delete_function_concurrency(FunctionName=name)

    def invocation(self, name: str, qualifier: str | None, changes: tuple[str, ...], *, is_new: bool = True) -> None:
        """Sets the destinations and allows recursion, where `changes` contains them.

        `is_new`: the role may be new too, so Lambda may not know the permissions yet.
        """
        if CREATE in changes or DESTINATIONS in changes:
            which = {"FunctionName": name, **({"Qualifier": qualifier} if qualifier else {})}
            put = self.client.put_function_event_invoke_config
            if is_new:
                self._retry_until_role_is_known(put, **which, **destinations(self.resources))
            else:
                put(**which, **destinations(self.resources))
        if CREATE in changes or RECURSION in changes:
            self.client.put_function_recursion_config(FunctionName=name, RecursiveLoop="Allow")

    def _create(self, name: str, step_lambda: StepLambda, full: Json) -> None:
        tags = {
            ENV_TAG: self.resources.env,
            FUNCTION_TAG: step_lambda.function_id,
            HASH_TAG: step_lambda.hash[:12],
            CODE_TAG: step_lambda.code_key,
        }
        whole = {
            "FunctionName": name,
            "Code": {"S3Bucket": self.resources.bucket, "S3Key": step_lambda.code_key},
            "Architectures": [step_lambda.architecture],
            "Tags": tags,
            **full,
        }
        try:
            self._retry_until_role_is_known(self.client.create_function, **whole)
        except self.client.exceptions.ResourceConflictException:
            # A request whose answer was lost has created it, or another push has; or an earlier creation failed.
            if self.client.get_function_configuration(FunctionName=name).get("State") == FAILED:
                self.client.delete_function(FunctionName=name)
                self._retry_until_role_is_known(self.client.create_function, **whole)

    def _retry_until_role_is_known(self, call: Callable[..., Any], **arguments: Any) -> None:
        """Calls again as long as Lambda does not know a new role. Raises ClientError."""
        waited, pause = 0.0, 0.5
        while True:
            try:
                call(**arguments)
            except ClientError as error:
                if not _is_propagating(error) or waited >= _PROPAGATION_S:
                    raise
                self.sleep(pause)
                waited += pause
                pause = min(2 * pause, 5.0)
            else:
                return


def _with_values(wanted: Json, values: str | None) -> Json:
    if values is None:
        return wanted
    return {**wanted, "Environment": {"Variables": {**wanted["Environment"]["Variables"], VALUES_HASH: values}}}


def _is_propagating(error: ClientError) -> bool:
    problem = error.response["Error"]
    message = problem.get("Message", "").lower()
    return problem["Code"] == "InvalidParameterValueException" and ("role" in message or "kms key" in message)
