"""The signing keys of an environment, stored as one SecureString in SSM.

They are not in the table, so that access to the table does not include them. The parameter holds JSON:
`{"current": ID, "keys": {ID: {"secret": base64, "made_at": ms, "retired_at": ms}}}`. The current key signs and has no
`retired_at`. Signatures of a retired key stay valid until `KEPT_MS` after it was retired. CloudFormation cannot create
SecureStrings, so the Lambda `register` creates the parameter, as a custom resource of the stack:
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

KEPT_MS = 367 * 86_400_000  # an approval and the token of its attempt are valid for at most 366 days
MOST_KEYS = 24  # a standard parameter of 4 KB has room for more than thirty
_ABOUT = "Keys that sign Stepwell's approval links and outcomes; `stepwell signing-keys rotate` changes them"


class NoKeys(Exception):
    """The environment has no signing keys. The message names the command that makes some."""


class CannotChange(Exception):
    """The signing keys cannot be changed like this. The message gives the reason and the fix."""


@dataclass(frozen=True, slots=True)
class Key:
    """A signing key. `made_at`, `retired_at`: ms since the epoch. The current key has no `retired_at`."""

    id: str
    secret: bytes
    made_at: int
    retired_at: int | None = None

    @property
    def valid_until(self) -> int | None:
        """When the key's signatures become invalid (ms since the epoch). None for the current key."""
        return None if self.retired_at is None else self.retired_at + KEPT_MS

    def is_valid(self, now: int) -> bool:
        return self.valid_until is None or now < self.valid_until


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of an environment. `all`: the current key is first. `version`: the version of the SSM parameter."""

    all: tuple[Key, ...]
    version: int = 0

    @property
    def current(self) -> Key:
        return self.all[0]

    def signing_keys(self, now: int) -> SigningKeys:
        return SigningKeys(self.current.id, {key.id: key.secret for key in self.all if key.is_valid(now)})

    def rotated(self, now: int) -> Keys:
        """The keys after a rotation: with a new current key, and without keys that are no longer valid."""
        retired = replace(self.current, retired_at=now)
        older = [key for key in self.all[1:] if key.is_valid(now)]
        return replace(self, all=(new_key(now), retired, *older))


def new_key(now: int) -> Key:
    return Key(base64.b32encode(secrets.token_bytes(5)).decode().lower(), secrets.token_bytes(32), now)


# --- the parameter ---------------------------------------------------------------------------------------------------


def read_keys(ssm: Any, env: str) -> Keys:
    """Reads the keys from SSM. Raises NoKeys, and boto3's errors."""
    name = signing_keys_parameter(env)
    try:
        found = ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]
    except ssm.exceptions.ParameterNotFound:
        hint = f"create it with `stepwell signing-keys rotate --env {env}`"
        raise NoKeys(f"the environment {env} has no signing keys: there is no parameter {name}; {hint}") from None
    written = orjson.loads(found["Value"])
    current = written["current"]
    keys = sorted((_key(id, item) for id, item in written["keys"].items()), key=lambda key: -key.made_at)
    return Keys(tuple(sorted(keys, key=lambda key: key.id != current)), found["Version"])


def make_keys(ssm: Any, resources: Resources, now: int) -> None:
    """Creates the parameter if there is none.

    Older versions of Stepwell have a key in the table. It becomes the current key until `leave_table` is called,
    because Lambdas of the older version may still run and know no other key.
    """
    item = read_item(resources.table, SECRET)
    first = new_key(now) if item is None else Key(UNNAMED, item["k"]["B"], now)
    try:
        _put(ssm, resources, Keys((first,)), overwrite=False)
    except ssm.exceptions.ParameterAlreadyExists:
        pass  # an earlier deploy created it, or a deleted stack left it


def leave_table(ssm: Any, resources: Resources, now: int) -> None:
    """Replaces the key that was in the table with a new one, and deletes the table's item. To be called once all
    Lambdas read the parameter."""
    keys = read_keys(ssm, resources.env)
    if keys.current.id == UNNAMED:
        _put(ssm, resources, keys.rotated(now))
    delete_items(resources.table, [SECRET])


def encrypt_again(ssm: Any, resources: Resources) -> None:
    """Writes the parameter again, with the environment's present KMS key."""
    _put(ssm, resources, read_keys(ssm, resources.env))


def delete_keys(ssm: Any, env: str) -> None:
    try:
        ssm.delete_parameter(Name=signing_keys_parameter(env))
    except ssm.exceptions.ParameterNotFound:
        pass


def rotate(ssm: Any, resources: Resources, now: int, *, drop_older: bool = False) -> Keys:
    """Makes a new current key; older keys stay valid unless `drop_older` is set. Raises CannotChange."""
    try:
        rotated = read_keys(ssm, resources.env).rotated(now)
    except NoKeys:
        rotated = Keys((new_key(now),))
    if drop_older:
        rotated = replace(rotated, all=rotated.all[:1])
    if len(rotated.all) > MOST_KEYS:
        raise CannotChange(
            f"there are {len(rotated.all) - 1} signing keys already; drop some with `stepwell signing-keys drop ID`"
        )
    _put(ssm, resources, rotated)
    return rotated


def drop(ssm: Any, resources: Resources, ids: Collection[str]) -> Keys:
    """Removes these keys, so that their signatures are invalid. Raises CannotChange, NoKeys."""
    keys = read_keys(ssm, resources.env)
    for id in ids:
        if id not in [key.id for key in keys.all]:
            raise CannotChange(f"there is no signing key {id!r}; `stepwell signing-keys list` shows them")
        if id == keys.current.id:
            raise CannotChange(f"{id} is the current key; replace it with `stepwell signing-keys rotate --drop-older`")
    remaining = replace(keys, all=tuple(key for key in keys.all if key.id not in ids))
    _put(ssm, resources, remaining)
    return remaining


def _put(ssm: Any, resources: Resources, keys: Keys, *, overwrite: bool = True) -> None:
    """Writes the parameter. Raises CannotChange if there was another change since the keys were read.

    SSM has no conditional writes, so the conflict is noticed after the write, by the version that SSM returns.
    """
    value = {"current": keys.current.id, "keys": {key.id: _as_json(key) for key in keys.all}}
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
        raise CannotChange(
            "the signing keys were changed by somebody else at the same time; list them and rotate again"
        )


def _key(id: str, fields: Mapping[str, Any]) -> Key:
    return Key(id, base64.b64decode(fields["secret"]), fields["made_at"], fields.get("retired_at"))


def _as_json(key: Key) -> dict[str, Any]:
    fields: dict[str, Any] = {"secret": base64.b64encode(key.secret).decode(), "made_at": key.made_at}
    return fields if key.retired_at is None else {**fields, "retired_at": key.retired_at}
