"""The values of `.env` files and secrets, which are stored in SSM and are not part of a version.

Nothing else stores a value or a hash of a value. Changes are detected by the version of the SSM parameter.
So commands never read the value of a secret, and people who run them need no permission to read it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from stepwell.aws.deploy.packaging import VALUES_HASH
from stepwell.aws.naming import function_prefix, secret_parameter, secrets_prefix
from stepwell.aws.resources import Resources

_PAGE = 10  # names in a request of GetParameters: the API's limit
_NAMES = 50  # names in a filter of DescribeParameters: the API's limit


@dataclass(frozen=True, slots=True)
class Parameter:
    """An SSM parameter. `value`: None if it was not read."""

    name: str
    value: str | None
    version: int
    changed_at: int  # ms since the epoch

    @property
    def stamp(self) -> str:
        """A text that changes whenever the value is set. It contains the time, since a parameter that was deleted and
        created again begins at version 1."""
        return f"{self.name}:{self.version}:{self.changed_at}"


def describe_parameters(ssm: Any, names: Iterable[str]) -> dict[str, Parameter]:
    """The parameters with these names that exist, without values."""
    found: dict[str, Parameter] = {}
    for page in _pages(sorted(set(names)), _NAMES):
        for parameter in _described(ssm, "Equals", page):
            found[parameter.name] = parameter
    return found


def parameters_below(ssm: Any, prefix: str) -> list[Parameter]:
    """The parameters whose names begin with `prefix`, without values."""
    return _described(ssm, "BeginsWith", [prefix])


def _described(ssm: Any, option: str, names: list[str]) -> list[Parameter]:
    filters = [{"Key": "Name", "Option": option, "Values": names}]
    pages = ssm.get_paginator("describe_parameters").paginate(ParameterFilters=filters)
    return [_parameter(raw) for page in pages for raw in page["Parameters"]]


def read_parameters(ssm: Any, names: Iterable[str]) -> dict[str, Parameter]:
    """The parameters with these names that exist, with decrypted values."""
    found: dict[str, Parameter] = {}
    for page in _pages(sorted(set(names)), _PAGE):
        for raw in ssm.get_parameters(Names=page, WithDecryption=True)["Parameters"]:
            found[raw["Name"]] = _parameter(raw)
    return found


def put_parameter(ssm: Any, resources: Resources, name: str, value: str) -> None:
    key = {"KeyId": resources.kms_key} if resources.kms_key else {}
    ssm.put_parameter(Name=name, Value=value, Type="SecureString", Overwrite=True, Tier="Intelligent-Tiering", **key)


def values_hash(names: Iterable[str], parameters: Mapping[str, Parameter]) -> str:
    """A hash of the parameters' stamps. It is a variable of each Lambda that uses them, so that a changed value starts
    new sandboxes."""
    stamps = "\n".join(parameters[name].stamp for name in sorted(names))
    return hashlib.sha256(stamps.encode()).hexdigest()[:16]


# --- secrets ---------------------------------------------------------------------------------------------------------


def list_secrets(ssm: Any, env: str) -> list[Parameter]:
    """All secrets of an environment by name, without values."""
    prefix = secrets_prefix(env)
    found = [
        replace(parameter, name=parameter.name.removeprefix(prefix)) for parameter in parameters_below(ssm, prefix)
    ]
    return sorted(found, key=lambda secret: secret.name)


def set_secret(ssm: Any, lambda_: Any, resources: Resources, name: str, value: str) -> list[str]:
    """Sets the secret, restarts the sandboxes of the Lambdas that use it, and returns the names of these Lambdas."""
    parameter = secret_parameter(resources.env, name)
    put_parameter(ssm, resources, parameter, value)
    users = _users(lambda_, resources.env, parameter)
    for function, (variables, names) in users.items():
        current = values_hash(names, describe_parameters(ssm, names))
        environment = {"Variables": {**variables, VALUES_HASH: current}}
        lambda_.update_function_configuration(FunctionName=function, Environment=environment)
    return list(users)


def remove_secret(ssm: Any, env: str, name: str) -> bool:
    """Removes the secret; returns False if it does not exist."""
    try:
        ssm.delete_parameter(Name=secret_parameter(env, name))
    except ssm.exceptions.ParameterNotFound:
        return False
    return True


def _users(lambda_: Any, env: str, parameter: str) -> dict[str, tuple[dict[str, str], list[str]]]:
    """The Lambdas that use this parameter: name -> (variables, names of all parameters that the Lambda uses)."""
    users = {}
    for page in lambda_.get_paginator("list_functions").paginate():
        for function in page["Functions"]:
            variables = function.get("Environment", {}).get("Variables", {})
            if function["FunctionName"].startswith(function_prefix(env)) and VALUES_HASH in variables:
                values = orjson.loads(variables["STEPWELL_VALUES"])
                names = [name for name in (values["dotenv"], *values["secrets"].values()) if name]
                if parameter in names:
                    users[function["FunctionName"]] = (variables, names)
    return users


def _parameter(raw: Any) -> Parameter:
    changed_at = int(raw["LastModifiedDate"].timestamp() * 1000)
    return Parameter(raw["Name"], raw.get("Value"), raw["Version"], changed_at)


def _pages(names: list[str], size: int) -> list[list[str]]:
    return [names[i : i + size] for i in range(0, len(names), size)]
