"""What is called how in an account. One rule: every name fits the service's limit, and no two things share one."""

from __future__ import annotations

import hashlib
import re

LONGEST = 64  # of a Lambda's and of a role's name
_LONGEST_ENV = 24
_DIGITS = 12

ENV_TAG, FUNCTION_TAG, HASH_TAG, CODE_TAG = "stepwell:env", "stepwell:function", "stepwell:hash", "stepwell:code"


class BadName(ValueError):
    """No names can be made of this; the message says why."""


def environment(env: str) -> str:
    """The name, if an environment may be called so. Raises BadName."""
    if not re.fullmatch(r"[a-z][a-z0-9-]*", env) or len(env) > _LONGEST_ENV:
        raise BadName(f"{env!r} is no environment: a-z, 0-9 and -, a letter first, at most {_LONGEST_ENV} characters")
    return env


def function_prefix(env: str) -> str:
    return f"stepwell-{env}-"


def function_name(env: str, function_id: str, digest: str) -> str:
    """The Lambda of a step; `digest`: hex, of all that it is made of."""
    return f"{function_prefix(env)}{_cut(function_id, _room(env))}-{digest[:_DIGITS]}"


def functions_pattern(env: str, function_id: str) -> str:
    """All Lambdas of one Stepwell function and no other's, as IAM writes patterns."""
    return f"{function_prefix(env)}{_cut(function_id, _room(env))}-{'?' * _DIGITS}"


def is_function_name(env: str, name: str) -> bool:
    return name.startswith(function_prefix(env)) and re.search(rf"-[0-9a-f]{{{_DIGITS}}}$", name) is not None


def role_prefix(env: str) -> str:
    return f"{function_prefix(env)}step-"


def role_name(env: str, function_id: str) -> str:
    """The role that the steps of one Stepwell function have."""
    prefix = role_prefix(env)
    return prefix + _cut(function_id, LONGEST - len(prefix))


def log_group(name: str) -> str:
    return f"/aws/lambda/{name}"


def task_log_group(env: str, function_id: str) -> str:
    """Of all containers of one Stepwell function."""
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
    """No step may read it: steps may read `.env` files and secrets, which have other prefixes."""
    return f"/stepwell/{env}/signing-keys"


CODE_PREFIX = "code/"


def code_key(code_hash: str, layout: str) -> str:
    """Where a step's zip is in the bucket: what it holds says its name, so that it is uploaded once."""
    return f"{CODE_PREFIX}{code_hash}.{layout}.zip"


def _room(env: str) -> int:
    return LONGEST - len(function_prefix(env)) - 1 - _DIGITS


def _cut(function_id: str, room: int) -> str:
    """The id, or its beginning and a hash of all of it."""
    if len(function_id) <= room:
        return function_id
    digest = hashlib.sha256(function_id.encode()).hexdigest()[:8]
    return f"{function_id[: room - 9].rstrip('-')}-{digest}"
