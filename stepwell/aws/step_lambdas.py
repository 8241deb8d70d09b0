"""The Lambda of a step in the account: how it is, and making it how it should be.

One rule: every change can be repeated, whatever became of it the last time; what is already so is left alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from stepwell.aws.naming import CODE_TAG, ENV_TAG, FUNCTION_TAG, HASH_TAG
from stepwell.aws.packaging import VALUES_HASH, StepLambda
from stepwell.aws.resources import Resources

Json = dict[str, Any]
Sleep = Callable[[float], None]
_PROPAGATION_S = 60.0  # IAM takes some 10 s until a new role works everywhere

CREATE, CONFIGURATION, VALUES, DESTINATIONS, RECURSION = (
    "create", "configuration", "values", "destinations", "recursion",
)  # fmt: skip


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


def configuration(its: StepLambda, resources: Resources, role: str) -> Json:
    """All of its configuration but the hash of its values."""
    layer = resources.layers.get(its.architecture)
    if layer is None:
        raise NoLayer(f"this environment has no adapter for {its.architecture}; run `cdk deploy` again")
    return {
        "Runtime": its.runtime,
        "Handler": its.handler,
        "MemorySize": its.memory,
        "Timeout": its.timeout_s,
        "Role": role,
        "Layers": [layer],
        "Environment": {"Variables": its.variables(resources.env)},
        "Description": f"Step {its.step_id} of {its.function_id}",
    }


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
    return LambdaState(found, invoke, recursion)


def changes(state: LambdaState | None, wanted: Json, values: str | None, resources: Resources) -> tuple[str, ...]:
    """What has to be done. `values`: the hash of its values, `""` if that is not known yet, None if it has none."""
    if state is None:
        return (CREATE,)
    has = state.configuration
    variables = dict(has.get("Environment", {}).get("Variables", {}))
    hashed = variables.pop(VALUES_HASH, None)
    is_now = {name: has.get(name) for name in wanted}
    is_now["Layers"] = [layer["Arn"] for layer in has.get("Layers") or ()]
    is_now["Environment"] = {"Variables": variables}
    found = []
    if is_now != wanted:
        found.append(CONFIGURATION)
    if hashed != values:
        found.append(VALUES)
    return (*found, *invocation_changes(state, resources))


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
    others = {its["Destination"] for its in config.values() if its.get("Destination")} - {resources.outcomes_queue_arn}
    if others:
        raise Taken(f"{arn} sends its results to {', '.join(sorted(others))}; give Stepwell an alias of it")


# --- changing it -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Changer:
    client: Any
    resources: Resources
    sleep: Sleep = time.sleep

    def make(self, its: StepLambda, wanted: Json, values: str | None, todo: tuple[str, ...]) -> None:
        name = its.name(self.resources.env)
        full = _with_values(wanted, values)
        if CREATE in todo:
            self._create(name, its, full)
        elif CONFIGURATION in todo or VALUES in todo:
            self._wait("function_updated_v2", name)
            self.client.update_function_configuration(FunctionName=name, **full)
            self._wait("function_updated_v2", name)
        self.invocation(name, None, todo)

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

    def _create(self, name: str, its: StepLambda, full: Json) -> None:
        tags = {
            ENV_TAG: self.resources.env,
            FUNCTION_TAG: its.function_id,
            HASH_TAG: its.hash[:12],
            CODE_TAG: its.code_key,
        }
        try:
            self._patiently(
                self.client.create_function,
                FunctionName=name,
                Code={"S3Bucket": self.resources.bucket, "S3Key": its.code_key},
                Architectures=[its.architecture],
                Tags=tags,
                **full,
            )
        except self.client.exceptions.ResourceConflictException:
            pass  # made by a request whose answer was lost, or by somebody who pushes the same
        self._wait("function_active_v2", name)

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

    def _wait(self, waiter: str, name: str) -> None:
        self.client.get_waiter(waiter).wait(FunctionName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 300})


def _with_values(wanted: Json, values: str | None) -> Json:
    if values is None:
        return wanted
    return {**wanted, "Environment": {"Variables": {**wanted["Environment"]["Variables"], VALUES_HASH: values}}}


def _is_propagating(error: ClientError) -> bool:
    problem = error.response["Error"]
    message = problem.get("Message", "").lower()
    return problem["Code"] == "InvalidParameterValueException" and ("role" in message or "kms key" in message)
