"""The Lambda of a step in the account: how it is, and making it how it should be.

One rule: every change can be repeated, whatever became of it the last time; what is already so is left alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from stepwell.aws.deploy.activity import FAILED, PENDING, Activity, Says, explained
from stepwell.aws.deploy.packaging import VALUES_HASH, StepLambda
from stepwell.aws.naming import CODE_TAG, ENV_TAG, FUNCTION_TAG, HASH_TAG
from stepwell.aws.resources import Resources

Json = dict[str, Any]
Sleep = Callable[[float], None]
_PROPAGATION_S = 60.0  # IAM takes some 10 s until a new role works everywhere

CREATE, CONFIGURATION, VALUES, DESTINATIONS, RECURSION, ACTIVATION, CONCURRENCY = (
    "create", "configuration", "values", "destinations", "recursion", "activation", "concurrency",
)  # fmt: skip
_SMALLEST_STORAGE = 512  # MB of /tmp
_UNLESS_SAID = {"EphemeralStorage": {"Size": _SMALLEST_STORAGE}, "TracingConfig": {"Mode": "PassThrough"}}


class NoLayer(Exception):
    """The environment has no adapter for this architecture."""


class Taken(Exception):
    """A Lambda that was given by its ARN sends its results elsewhere."""


@dataclass(frozen=True, slots=True)
class LambdaState:
    """As AWS describes it; None: it is not there."""

    configuration: Json
    destinations: Json | None
    recursion: str
    concurrency: int = 0  # reserved; 0: none is


def configuration(step_lambda: StepLambda, resources: Resources, role: str) -> Json:
    """All of its configuration but the hash of its values."""
    layer = resources.layers.get(step_lambda.architecture)
    if layer is None:
        raise NoLayer(f"this environment has no adapter for {step_lambda.architecture}; run `cdk deploy` again")
    found: Json = {
        "Runtime": step_lambda.runtime,
        "Handler": step_lambda.handler,
        "MemorySize": step_lambda.memory,
        "Timeout": step_lambda.timeout_s,
        "Role": role,
        "Layers": [*step_lambda.layers, layer],  # a file of a later layer wins: nothing takes the place of the adapter
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
    """Whether X-Ray traces it, as the step says, or else the environment."""
    return resources.tracing if step_lambda.tracing is None else step_lambda.tracing


def destinations(resources: Resources) -> Json:
    """The engine retries, and Lambda never does."""
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
    """Instances reserved for it. A Lambda of somebody else, which has an ARN here, keeps what it has."""
    if name.startswith("arn:"):
        return 0
    reserved: int = client.get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions", 0)
    return reserved


def changes(state: LambdaState | None, wanted: Json, values: str | None, resources: Resources) -> tuple[str, ...]:
    """What has to be done. `values`: the hash of its values, `""` if that is not known yet, None if it has none. One
    that failed while Lambda made it never becomes usable, and is made again:
    https://docs.aws.amazon.com/lambda/latest/dg/functions-states.html"""
    if state is None or state.configuration.get("State") == FAILED:
        return (CREATE,)
    has = state.configuration
    variables = dict(has.get("Environment", {}).get("Variables", {}))
    hashed = variables.pop(VALUES_HASH, None)
    is_now = {name: has.get(name, _UNLESS_SAID.get(name)) for name in wanted}
    is_now["Layers"] = [layer["Arn"] for layer in has.get("Layers") or ()]
    is_now["Environment"] = {"Variables": variables}
    if "VpcConfig" in wanted:
        is_now["VpcConfig"] = _ids(has.get("VpcConfig") or {})
        wanted = {**wanted, "VpcConfig": _ids(wanted["VpcConfig"])}
    found = []
    if is_now != wanted or has.get("LastUpdateStatus") == FAILED:
        found.append(CONFIGURATION)
    elif has.get("State") == PENDING:  # a push that was interrupted did not wait for it
        found.append(ACTIVATION)
    if hashed != values:
        found.append(VALUES)
    if state.concurrency != resources.step_concurrency:
        found.append(CONCURRENCY)
    return (*found, *invocation_changes(state, resources))


def _ids(network: Json) -> Json:
    """The ids of a network, in whatever order Lambda gives them."""
    return {name: sorted(network.get(name, ())) for name in ("SubnetIds", "SecurityGroupIds")}


def invocation_changes(state: LambdaState, resources: Resources) -> tuple[str, ...]:
    wanted, has = destinations(resources), state.destinations or {}
    found = []
    if any(has.get(name) != value for name, value in wanted.items()):
        found.append(DESTINATIONS)
    if state.recursion != "Allow":
        found.append(RECURSION)
    return tuple(found)


def check_free(arn: str, state: LambdaState, resources: Resources) -> None:
    """Raises Taken if a Lambda that is not ours already sends its results somewhere else."""
    config = (state.destinations or {}).get("DestinationConfig", {})
    others = {item["Destination"] for item in config.values() if item.get("Destination")} - {
        resources.outcomes_queue_arn
    }
    if others:
        raise Taken(f"{arn} sends its results to {', '.join(sorted(others))}; give Stepwell an alias of it")


# --- changing it -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Changer:
    client: Any
    resources: Resources
    sleep: Sleep = time.sleep
    says: Says = lambda line: None  # how far it is, for people who wait

    def make(self, step_lambda: StepLambda, wanted: Json, values: str | None, todo: tuple[str, ...]) -> None:
        name = step_lambda.name(self.resources.env)
        full = _with_values(wanted, values)
        activity = Activity(self.client, name, step_lambda.vpc, self.sleep, self.says)
        if CREATE in todo:
            with explained(name, step_lambda.vpc):
                self._create(name, step_lambda, full)
            activity.wait()
        elif CONFIGURATION in todo or VALUES in todo:
            activity.wait(also_failed=True)
            with explained(name, step_lambda.vpc):
                self.client.update_function_configuration(FunctionName=name, **full)
            activity.wait()
        elif ACTIVATION in todo:
            activity.wait()
        if CONCURRENCY in todo or (CREATE in todo and self.resources.step_concurrency):
            self._reserve(name)
        self.invocation(name, None, todo)

    def _reserve(self, name: str) -> None:
        """Reserve as many instances as each step may have, which is also their limit; or none, so that all share the
        account's. https://docs.aws.amazon.com/lambda/latest/dg/configuration-concurrency.html"""
        if most := self.resources.step_concurrency:
            self.client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=most)
        else:
            self.client.delete_function_concurrency(FunctionName=name)

    def invocation(self, name: str, qualifier: str | None, todo: tuple[str, ...], *, is_new: bool = True) -> None:
        """`is_new`: its role may be new too, so that Lambda does not know yet what it allows."""
        if CREATE in todo or DESTINATIONS in todo:
            which = {"FunctionName": name, **({"Qualifier": qualifier} if qualifier else {})}
            put = self.client.put_function_event_invoke_config
            if is_new:
                self._patiently(put, **which, **destinations(self.resources))
            else:
                put(**which, **destinations(self.resources))
        if CREATE in todo or RECURSION in todo:
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
            self._patiently(self.client.create_function, **whole)
        except self.client.exceptions.ResourceConflictException:
            # Made by a request whose answer was lost, or by somebody who pushes the same; or it failed some time ago.
            if self.client.get_function_configuration(FunctionName=name).get("State") == FAILED:
                self.client.delete_function(FunctionName=name)
                self._patiently(self.client.create_function, **whole)

    def _patiently(self, call: Callable[..., Any], **arguments: Any) -> None:
        """Call again while IAM has not told Lambda of the role yet."""
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
