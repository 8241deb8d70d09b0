"""Names of the resources in an AWS account. Every name is unique and within the length limit of the service."""

from __future__ import annotations

import hashlib
import re

LONGEST = 64  # characters in the name of a Lambda or of a role
_LONGEST_ENV = 24
_DIGITS = 12

ENV_TAG, FUNCTION_TAG, HASH_TAG, CODE_TAG = "stepwell:env", "stepwell:function", "stepwell:hash", "stepwell:code"


class BadName(ValueError):
    """The name of an environment is not valid; the message contains the reason."""


def environment(env: str) -> str:
    """The given name, if it is valid for an environment. Raises BadName."""
    if not re.fullmatch(r"[a-z][a-z0-9-]*", env) or len(env) > _LONGEST_ENV:
        raise BadName(
            f"{env!r} is not valid as the name of an environment: use a-z, 0-9 and -, begin with a letter, at most"
            f" {_LONGEST_ENV} characters"
        )
    return env


def function_prefix(env: str) -> str:
    return f"stepwell-{env}-"


def function_name(env: str, function_id: str, digest: str) -> str:
    """The name of a step's Lambda. `digest`: hex digest of the code and the settings."""
    return f"{function_prefix(env)}{_cut(function_id, _room(env))}-{digest[:_DIGITS]}"


def functions_pattern(env: str, function_id: str) -> str:
    """An IAM name pattern that matches the Lambdas of one Stepwell function and no others."""
    return f"{function_prefix(env)}{_cut(function_id, _room(env))}-{'?' * _DIGITS}"


def is_function_name(env: str, name: str) -> bool:
    return name.startswith(function_prefix(env)) and re.search(rf"-[0-9a-f]{{{_DIGITS}}}$", name) is not None


def role_prefix(env: str) -> str:
    return f"{function_prefix(env)}step-"


def role_name(env: str, function_id: str) -> str:
    """The name of the role that all steps of a Stepwell function use."""
    prefix = role_prefix(env)
    return prefix + _cut(function_id, LONGEST - len(prefix))


def log_group(name: str) -> str:
    return f"/aws/lambda/{name}"


def task_log_group(env: str, function_id: str) -> str:
    """The log group of all containers of a Stepwell function."""
    return f"/stepwell/{env}/tasks/{function_id}"


def dotenv_prefix(env: str) -> str:
    return f"/stepwell/{env}/dotenv/"


def dotenv_parameter(env: str, function_id: str, step_id: str) -> str:
    return f"{dotenv_prefix(env)}{function_id}/{step_id}"


def secrets_prefix(env: str) -> str:
    return f"/stepwell/{env}/secrets/"


def secret_parameter(env: str, name: str) -> str:
    return secrets_prefix(env) + name


def signing_keys_parameter(env: str) -> str:
    """The SSM parameter of the signing keys. Steps cannot read it: their roles allow only the prefixes of `.env` files
    and secrets."""
    return f"/stepwell/{env}/signing-keys"


CODE_PREFIX = "code/"


def code_key(code_hash: str, layout: str) -> str:
    """The S3 key of a step's zip. It contains the hash of the code, so the same code is uploaded once."""
    return f"{CODE_PREFIX}{code_hash}.{layout}.zip"


def _room(env: str) -> int:
    return LONGEST - len(function_prefix(env)) - 1 - _DIGITS


def _cut(function_id: str, room: int) -> str:
    """The id if it fits into `room` characters; otherwise the start of the id and a hash of the whole id."""
    if len(function_id) <= room:
        return function_id
    digest = hashlib.sha256(function_id.encode()).hexdigest()[:8]
    return f"{function_id[: room - 9].rstrip('-')}-{digest}"
