"""The signing keys of an environment: one SecureString in SSM, which nobody can read who can read only the table.

The parameter holds JSON: `{"current": ID, "keys": {ID: {"secret": base64, "made_at": ms, "retired_at": ms}}}`. The
current key signs and has no `retired_at`; every key that is listed counts until `KEPT_MS` after it was retired.
CloudFormation makes no SecureStrings, so the Lambda `register` makes it, as a custom resource of the stack:
https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-ssm-parameter.html
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from stepwell.aws.naming import signing_keys_parameter
from stepwell.aws.resources import Resources
from stepwell.aws.table.items import delete_items, read_item
from stepwell.aws.table.keys import SECRET
from stepwell.core.signing import UNNAMED, SigningKeys

KEPT_MS = 367 * 86_400_000  # an approval waits 366 days at most, and so does the attempt that asks for it
MOST_KEYS = 24  # 4 KB, what a standard parameter holds, have room for more than thirty
_ABOUT = "Keys that sign Stepwell's approval links and outcomes; `stepwell signing-keys rotate` changes them"


class NoKeys(Exception):
    """The environment has no signing keys; the message says how to make some."""


class CannotChange(Exception):
    """The signing keys cannot be changed so; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Key:
    """`made_at`, `retired_at`: ms since the epoch; None: it signs."""

    id: str
    secret: bytes
    made_at: int
    retired_at: int | None = None

    @property
    def counts_until(self) -> int | None:
        """None: no end is known yet."""
        return None if self.retired_at is None else self.retired_at + KEPT_MS

    def counts(self, now: int) -> bool:
        until = self.counts_until
        return until is None or now < until


@dataclass(frozen=True, slots=True)
class Keys:
    """`all`: the current one first. `version`: of the parameter."""

    all: tuple[Key, ...]
    version: int = 0

    @property
    def current(self) -> Key:
        return self.all[0]

    def signing_keys(self, now: int) -> SigningKeys:
        return SigningKeys(self.current.id, {key.id: key.secret for key in self.all if key.counts(now)})

    def rotated(self, now: int) -> Keys:
        """With a new key that signs; without those that count no longer."""
        retired = replace(self.current, retired_at=now)
        older = [key for key in self.all[1:] if key.counts(now)]
        return replace(self, all=(new_key(now), retired, *older))


def new_key(now: int) -> Key:
    return Key(base64.b32encode(secrets.token_bytes(5)).decode().lower(), secrets.token_bytes(32), now)


# --- the parameter ---------------------------------------------------------------------------------------------------


def read_keys(ssm: Any, env: str) -> Keys:
    """Raises NoKeys, and what boto3 raises."""
    name = signing_keys_parameter(env)
    try:
        found = ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]
    except ssm.exceptions.ParameterNotFound:
        hint = f"`stepwell signing-keys rotate --env {env}` makes it"
        raise NoKeys(f"the environment {env} has no signing keys: there is no parameter {name}; {hint}") from None
    written = orjson.loads(found["Value"])
    current = written["current"]
    keys = sorted((_key(id, item) for id, item in written["keys"].items()), key=lambda key: -key.made_at)
    return Keys(tuple(sorted(keys, key=lambda key: key.id != current)), found["Version"])


def make_keys(ssm: Any, resources: Resources, now: int) -> None:
    """Make the parameter if there is none. What signed before, an item of the table, stays the key that signs until
    `leave_table`: Lambdas of the older version, which may still run, know no other."""
    item = read_item(resources.table, SECRET)
    first = new_key(now) if item is None else Key(UNNAMED, item["k"]["B"], now)
    try:
        _put(ssm, resources, Keys((first,)), overwrite=False)
    except ssm.exceptions.ParameterAlreadyExists:
        pass  # an earlier deploy made it, or it outlived its stack


def leave_table(ssm: Any, resources: Resources, now: int) -> None:
    """Sign with a key that was never in the table, and delete the item that was. Call it when every Lambda reads the
    parameter."""
    keys = read_keys(ssm, resources.env)
    if keys.current.id == UNNAMED:
        _put(ssm, resources, keys.rotated(now))
    delete_items(resources.table, [SECRET])


def encrypt_again(ssm: Any, resources: Resources) -> None:
    """Write the parameter with the KMS key that the environment has now."""
    _put(ssm, resources, read_keys(ssm, resources.env))


def delete_keys(ssm: Any, env: str) -> None:
    try:
        ssm.delete_parameter(Name=signing_keys_parameter(env))
    except ssm.exceptions.ParameterNotFound:
        pass


def rotate(ssm: Any, resources: Resources, now: int, *, drop_older: bool = False) -> Keys:
    """Sign with a new key from now on; the others count on, unless they are dropped. Raises CannotChange."""
    try:
        rotated = read_keys(ssm, resources.env).rotated(now)
    except NoKeys:
        rotated = Keys((new_key(now),))
    if drop_older:
        rotated = replace(rotated, all=rotated.all[:1])
    if len(rotated.all) > MOST_KEYS:
        raise CannotChange(
            f"there are {len(rotated.all) - 1} signing keys already; drop some: `stepwell signing-keys drop ID`"
        )
    _put(ssm, resources, rotated)
    return rotated


def drop(ssm: Any, resources: Resources, ids: Collection[str]) -> Keys:
    """Let these keys count no more. Raises CannotChange, NoKeys."""
    keys = read_keys(ssm, resources.env)
    for id in ids:
        if id not in [key.id for key in keys.all]:
            raise CannotChange(f"there is no signing key {id!r}; `stepwell signing-keys list` shows them")
        if id == keys.current.id:
            raise CannotChange(f"{id} is the key that signs; `stepwell signing-keys rotate --drop-older` replaces it")
    left = replace(keys, all=tuple(key for key in keys.all if key.id not in ids))
    _put(ssm, resources, left)
    return left


def _put(ssm: Any, resources: Resources, keys: Keys, *, overwrite: bool = True) -> None:
    """Raises CannotChange if somebody else wrote since these keys were read: SSM has no conditional write, but says
    which version it made."""
    value = {"current": keys.current.id, "keys": {key.id: _written(key) for key in keys.all}}
    answer = ssm.put_parameter(
        Name=signing_keys_parameter(resources.env),
        Description=_ABOUT,
        Value=orjson.dumps(value).decode(),
        Type="SecureString",
        Tier="Standard",
        Overwrite=overwrite,
        **({"KeyId": resources.kms_key} if resources.kms_key else {}),
    )
    if keys.version and answer["Version"] != keys.version + 1:
        raise CannotChange("somebody else changed the signing keys at this moment; look at them, and rotate once more")


def _key(id: str, fields: Mapping[str, Any]) -> Key:
    return Key(id, base64.b64decode(fields["secret"]), fields["made_at"], fields.get("retired_at"))


def _written(key: Key) -> dict[str, Any]:
    fields: dict[str, Any] = {"secret": base64.b64encode(key.secret).decode(), "made_at": key.made_at}
    return fields if key.retired_at is None else {**fields, "retired_at": key.retired_at}
