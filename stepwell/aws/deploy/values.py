"""Values that are no part of a version: what `.env` files and secrets hold, in SSM.

Neither a value nor a hash of one stands anywhere else. That a value has changed is seen by its parameter's version, so
that commands never read a secret's value, and whoever runs them needs no right to.
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

_PAGE = 10  # GetParameters takes no more
_NAMES = 50  # a filter of DescribeParameters takes no more


@dataclass(frozen=True, slots=True)
class Parameter:
    """`value`: None if it was not read."""

    name: str
    value: str | None
    version: int
    changed_at: int  # ms since the epoch

    @property
    def stamp(self) -> str:
        """Changes whenever the value is set; a parameter that was deleted and made again begins at version 1."""
        return f"{self.name}:{self.version}:{self.changed_at}"


def describe_parameters(ssm: Any, names: Iterable[str]) -> dict[str, Parameter]:
    """Those that exist, without their values."""
    found: dict[str, Parameter] = {}
    for page in _pages(sorted(set(names)), _NAMES):
        for parameter in _described(ssm, "Equals", page):
            found[parameter.name] = parameter
    return found


def parameters_below(ssm: Any, prefix: str) -> list[Parameter]:
    """Those whose names begin so, without their values."""
    return _described(ssm, "BeginsWith", [prefix])


def _described(ssm: Any, option: str, names: list[str]) -> list[Parameter]:
    filters = [{"Key": "Name", "Option": option, "Values": names}]
    pages = ssm.get_paginator("describe_parameters").paginate(ParameterFilters=filters)
    return [_parameter(raw) for page in pages for raw in page["Parameters"]]


def read_parameters(ssm: Any, names: Iterable[str]) -> dict[str, Parameter]:
    """Those that exist, decrypted."""
    found: dict[str, Parameter] = {}
    for page in _pages(sorted(set(names)), _PAGE):
        for raw in ssm.get_parameters(Names=page, WithDecryption=True)["Parameters"]:
            found[raw["Name"]] = _parameter(raw)
    return found


def put_parameter(ssm: Any, resources: Resources, name: str, value: str) -> None:
    key = {"KeyId": resources.kms_key} if resources.kms_key else {}
    ssm.put_parameter(Name=name, Value=value, Type="SecureString", Overwrite=True, Tier="Intelligent-Tiering", **key)


def values_hash(names: Iterable[str], parameters: Mapping[str, Parameter]) -> str:
    """What a Lambda with these values has in its environment, so that a changed one makes new sandboxes."""
    stamps = "\n".join(parameters[name].stamp for name in sorted(names))
    return hashlib.sha256(stamps.encode()).hexdigest()[:16]


# --- secrets ---------------------------------------------------------------------------------------------------------


def list_secrets(ssm: Any, env: str) -> list[Parameter]:
    """All of an environment, without their values."""
    prefix = secrets_prefix(env)
    found = [
        replace(parameter, name=parameter.name.removeprefix(prefix)) for parameter in parameters_below(ssm, prefix)
    ]
    return sorted(found, key=lambda secret: secret.name)


def set_secret(ssm: Any, lambda_: Any, resources: Resources, name: str, value: str) -> list[str]:
    """Set it, and make the Lambdas that have it begin anew; their names."""
    parameter = secret_parameter(resources.env, name)
    put_parameter(ssm, resources, parameter, value)
    users = _users(lambda_, resources.env, parameter)
    for function, (variables, names) in users.items():
        current = values_hash(names, describe_parameters(ssm, names))
        environment = {"Variables": {**variables, VALUES_HASH: current}}
        lambda_.update_function_configuration(FunctionName=function, Environment=environment)
    return list(users)


def remove_secret(ssm: Any, env: str, name: str) -> bool:
    """False if there is none."""
    try:
        ssm.delete_parameter(Name=secret_parameter(env, name))
    except ssm.exceptions.ParameterNotFound:
        return False
    return True


def _users(lambda_: Any, env: str, parameter: str) -> dict[str, tuple[dict[str, str], list[str]]]:
    """The Lambdas that have this parameter: their variables, and all their parameters."""
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
