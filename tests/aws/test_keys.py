"""API keys in DynamoDB: permissions, when changes take effect, and the cost of guessing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stepwell.api.access import KeyScope
from stepwell.aws.api import keys as api_keys
from stepwell.aws.api.keys import KeyStore
from stepwell.aws.clients import client
from stepwell.aws.resources import Resources


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(resources: Resources, clock: Clock) -> KeyStore:
    return KeyStore(replace(resources, keys_cache_s=5), clock)


def guess(number: int) -> str:
    return f"sw_send_{number:032}"


def test_a_key_allows_what_its_scope_says(keys: KeyStore) -> None:
    for scope in KeyScope:
        key, secret = keys.create(scope, "web", 1)
        assert secret.startswith(f"sw_{scope.value}_")
        assert (key.scope, key.name, key.created_at, key.revoked_at) == (scope, "web", 1, None)
        assert keys.scope_of(secret) is scope


def test_no_secret_is_stored(keys: KeyStore, resources: Resources) -> None:
    _, secret = keys.create(KeyScope.SEND, "web", 1)
    assert secret.rpartition("_")[2] not in str(client("dynamodb").scan(TableName=resources.table)["Items"])


def test_keys_are_listed_the_oldest_first(keys: KeyStore) -> None:
    made = [keys.create(KeyScope.SEND, f"key {at}", at)[0] for at in (3, 1, 2)]
    assert keys.list() == [made[1], made[2], made[0]]


def test_a_key_is_revoked_once(keys: KeyStore, clock: Clock) -> None:
    key, secret = keys.create(KeyScope.SEND, "web", 1)
    assert keys.scope_of(secret) is KeyScope.SEND
    assert keys.revoke(key.id, 2)
    assert not keys.revoke(key.id, 3)
    assert not keys.revoke("nothing", 3)
    assert [key.revoked_at for key in keys.list()] == [2]
    clock.now = 5.0
    assert keys.scope_of(secret) is None


def test_an_answer_is_remembered_for_a_minute_however_old_the_view_of_functions_may_be(
    resources: Resources, clock: Clock, requests: list[str]
) -> None:
    keys = KeyStore(resources, clock)
    assert resources.cache_s == 5
    _, secret = keys.create(KeyScope.SEND, "web", 1)
    requests.clear()
    for now, reads in ((0.0, 1), (59.9, 1), (60.0, 2)):
        clock.now = now
        assert keys.scope_of(secret) is KeyScope.SEND
        assert requests.count("GetItem") == reads


def test_a_key_that_is_none_costs_nothing_and_a_wrong_one_costs_one_read(keys: KeyStore, requests: list[str]) -> None:
    for key in (None, "", "sw_send_", "x" * 40, "sw_admin_" + "x" * 32, guess(1) + "x", "sw_send_" + "ü" * 32):
        assert keys.scope_of(key) is None
    assert requests == []
    assert [keys.scope_of(guess(1)) for _ in range(3)] == [None] * 3
    assert requests == ["GetItem"]


def test_a_key_that_was_unknown_counts_when_it_has_been_made(keys: KeyStore, clock: Clock) -> None:
    _, secret = keys.create(KeyScope.SEND, "web", 1)
    item = client("dynamodb").scan(TableName="stepwell")["Items"][0]
    client("dynamodb").delete_item(TableName="stepwell", Key={"pk": item["pk"], "sk": item["sk"]})
    assert keys.scope_of(secret) is None
    client("dynamodb").put_item(TableName="stepwell", Item=item)
    assert keys.scope_of(secret) is None
    clock.now = 5.0
    assert keys.scope_of(secret) is KeyScope.SEND


def test_guesses_do_not_push_out_keys_that_are_in_use(
    keys: KeyStore, requests: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_keys, "_MOST", 3)
    _, secret = keys.create(KeyScope.SEND, "web", 1)
    assert keys.scope_of(secret) is KeyScope.SEND
    for number in range(10):
        keys.scope_of(guess(number))
    requests.clear()
    assert keys.scope_of(secret) is KeyScope.SEND
    assert requests == []
    keys.scope_of(guess(9))
    assert requests == []
    keys.scope_of(guess(0))  # too long ago
    assert requests == ["GetItem"]
