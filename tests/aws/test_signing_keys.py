"""Keys that sign links and tokens: what cannot be forged, and what happens while keys change or cannot be read."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from stepwell.aws.clients import client
from stepwell.aws.engine.session import now_ms
from stepwell.aws.resources import Resources
from stepwell.aws.signing import signing_keys
from stepwell.aws.signing.signing_keys import KEPT_MS, CannotChange, NoKeys, read_keys
from stepwell.aws.signing.tokens import Tokens
from stepwell.aws.table.keys import SECRET
from stepwell.core.run.approvals import Link, decided
from stepwell.core.run.run import RunStatus
from stepwell.core.run.stored_links import REQUESTED
from stepwell.core.signing import UNNAMED, KeysUnreadable, SigningKeys, UnknownKey, key_of, single_key
from stepwell.testing.batches import LOST, Batches, Json, Process, destination, handler_step, sqs_event

PARAMETER = "/stepwell/test/signing-keys"
APPROVAL: Json = {"runtime": {"type": "approval", "message": "Really?"}, "timeout": "2d"}
OLD_SECRET = b"\x01" * 32
DAY_MS = 86_400_000


def keys(resources: Resources) -> signing_keys.Keys:
    return read_keys(client("ssm"), resources.env)


def rotate(resources: Resources, **options: bool) -> signing_keys.Keys:
    return signing_keys.rotate(client("ssm"), resources, now_ms(), **options)


@contextmanager
def ssm_requests(error: Exception | None = None) -> Iterator[list[str]]:
    """The names of the requests to SSM in the meantime. If an error is given, each of them fails with it."""
    asked: list[str] = []

    def note(model: Any, **_: Any) -> None:
        asked.append(model.name)
        if error is not None:
            raise error

    events = client("ssm").meta.events
    events.register("before-call.ssm", note, unique_id="noted")
    try:
        yield asked
    finally:
        events.unregister("before-call.ssm", unique_id="noted")


DOWN = EndpointConnectionError(endpoint_url="https://ssm.eu-west-1.amazonaws.com/")
THROTTLED = ClientError({"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}, "GetParameter")


def asking_and_running(batches: Batches) -> tuple[Json, str]:
    """A run with a running attempt and an open approval: the input of the attempt, and the link to approve."""
    batches.answer = lambda ctx: LOST if ctx["step_id"] == "slow" else {"ok": True}
    batches.deploy({"ask": APPROVAL, "slow": handler_step(), "end": handler_step("ask", "slow", join="all")})
    batches.send()
    batches.drain()
    ((stored, _),) = batches.runs()
    (payload,) = batches.invoked
    plan = batches.session.store.batch(now_ms()).load([stored.run.id])[stored.run.id].plan
    return payload, batches.session.links().of(plan, stored.run, 0)[0].rpartition("/")[2]


def finish(batches: Batches, payload: Json, link: str, process: Process | None = None) -> RunStatus:
    """The attempt ends, and the link is followed. Returns the state of the run."""
    process = process or Process(batches.resources)
    found = process.session.links().read(link)
    if found is not None:
        assert process.control.decide(found, decided(found.decision, None, None, now_ms()))
    assert process.consumer.advance(sqs_event([destination(payload, {})])) == {"batchItemFailures": []}
    batches.drain()
    ((stored, _),) = batches.runs()
    return stored.run.status


# --- who can read the table ------------------------------------------------------------------------------------------


def secrets_in(batches: Batches) -> set[bytes]:
    """Everything in the table that could be taken for a secret."""
    pages = batches.outside_db.get_paginator("scan").paginate(TableName=batches.resources.table)
    found: set[bytes] = set()

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            for one in value.values():
                collect(one)
        elif isinstance(value, list):
            for one in value:
                collect(one)
        elif isinstance(value, bytes | str):
            content = value if isinstance(value, bytes) else value.encode()
            found.add(content)
            with_hex = content.decode(errors="ignore")
            if len(with_hex) % 2 == 0 and with_hex.isalnum():
                try:
                    found.add(bytes.fromhex(with_hex))
                except ValueError:
                    pass

    collect([page["Items"] for page in pages])
    return found


def can_forge(batches: Batches, payload: Json, link: Link) -> bool:
    """Whether any of these texts signs an attempt or an approval, with the name of any key."""
    ctx, process = payload["ctx"], Process(batches.resources)
    named = [key.id for key in keys(batches.resources).all]  # not secret: tokens and links contain them
    for secret in secrets_in(batches):
        for signer in (SigningKeys(name, {name: secret}) for name in {*named, UNNAMED}):
            text = f"{ctx['run_id']}/{ctx['step_id']}/{ctx['attempt']}".encode()
            if process.session.tokens.is_valid(signer.sign(text), ctx["run_id"], ctx["step_id"], ctx["attempt"]):
                return True
            if process.session.links().read(replace(process.session.links(), keys=signer).token(link)) is not None:
                return True
    return False


TOKEN = re.compile(rb"[a-z2-7]{26}\.\d+\.\d+\.[ad]\.\d+\.[a-z2-7.]*[0-9a-f]*")


def test_who_reads_the_whole_table_finds_no_link_that_decides(batches: Batches) -> None:
    """Although a function is started for each approval, and the event and the run of it are stored with the links."""
    batches.answer = lambda ctx: {"ok": True}
    batches.deploy({"notify": handler_step(), "again": handler_step("notify")}, REQUESTED, "mailer")
    batches.deploy({"ask": APPROVAL})
    batches.send()
    batches.drain()
    first, again = (payload["event"]["data"]["approve_url"] for payload in batches.invoked)
    assert first == again  # the event of the later step was read from the table
    links = batches.session.links()
    assert links.read(first.rpartition("/")[2]) is not None
    stored = [found.decode() for content in secrets_in(batches) for found in TOKEN.findall(content)]
    assert len(stored) >= 2  # to approve, and to decline
    assert [token for token in stored if links.read(token) is not None] == []


def test_who_reads_the_whole_table_can_forge_neither_an_outcome_nor_an_approval(batches: Batches) -> None:
    payload, token = asking_and_running(batches)
    link = batches.session.links().read(token)
    assert link is not None
    assert not can_forge(batches, payload, link)
    assert not any(
        payload["ctx"]["token"].encode() in content or token.encode() in content for content in secrets_in(batches)
    )


def test_the_table_of_an_older_version_had_all_that_is_needed_to_forge(batches: Batches) -> None:
    """Proves that the test above would find a secret."""
    as_of_older_version(batches)
    payload, token = asking_and_running(batches)
    link = batches.session.links().read(token)
    assert link is not None
    assert can_forge(batches, payload, link)


# --- keys that change ------------------------------------------------------------------------------------------------


def test_a_token_names_the_key_that_signed_it(batches: Batches) -> None:
    payload, link = asking_and_running(batches)
    current = keys(batches.resources).current.id
    assert key_of(payload["ctx"]["token"]) == current
    assert key_of(".".join(link.split(".")[-2:])) == current


def test_a_token_counts_for_its_run_its_step_and_its_attempt_alone(batches: Batches) -> None:
    tokens = Tokens(batches.resources)
    token = tokens.of("run", "step", 1)
    assert tokens.is_valid(token, "run", "step", 1)
    for other in (("run", "step", 2), ("run", "other", 1), ("other", "step", 1), ("run/step", "1", 1)):
        assert not tokens.is_valid(token, *other)
    for no_token in (None, 1, "", token[:-1], token.upper()):
        assert not tokens.is_valid(no_token, "run", "step", 1)


@pytest.mark.parametrize("is_warm", [True, False])
def test_a_rotation_leaves_open_approvals_and_running_attempts_as_they_are(batches: Batches, is_warm: bool) -> None:
    payload, link = asking_and_running(batches)
    before = keys(batches.resources).current.id
    rotated = rotate(batches.resources)
    assert [key.id for key in rotated.all] == [rotated.current.id, before]
    assert finish(batches, payload, link, batches.process if is_warm else None) is RunStatus.COMPLETED


def test_a_warm_lambda_knows_a_new_key_as_soon_as_a_token_names_it(batches: Batches) -> None:
    warm = batches.process
    warm.session.tokens.require()
    rotate(batches.resources)
    batches.start()
    payload, link = asking_and_running(batches)
    assert key_of(payload["ctx"]["token"]) == keys(batches.resources).current.id
    assert finish(batches, payload, link, warm) is RunStatus.COMPLETED


def test_keys_are_read_once_and_again_when_they_are_old(resources: Resources) -> None:
    now = 1000.0
    tokens = Tokens(replace(resources, signing_keys_cache_s=300), lambda: now)
    first = keys(resources).current.id
    with ssm_requests() as reads:
        assert key_of(tokens.of("run", "step", 1)) == first
        rotate(resources)
        reads.clear()
        now += 149
        assert key_of(tokens.of("run", "step", 1)) == first
        assert reads == []
        now += 152
        assert key_of(tokens.of("run", "step", 1)) == keys(resources).current.id
        reads.pop()  # the key of the line above
        assert len(reads) == 1


def test_unknown_keys_cannot_make_a_lambda_read_more_than_once_in_some_seconds(resources: Resources) -> None:
    now = 1000.0
    tokens = Tokens(replace(resources, signing_keys_again_s=5), lambda: now)
    tokens.require()
    forged = f"aaaaaaaa.{'0' * 32}"
    with ssm_requests() as reads:
        with pytest.raises(UnknownKey):  # the keys were read a moment ago: a new rotation may have created it
            tokens.is_valid(forged, "run", "step", 1)
        now += 5
        assert not tokens.is_valid(forged, "run", "step", 1)
        for _ in range(100):
            with pytest.raises(UnknownKey):
                tokens.is_valid(forged, "run", "step", 1)
        assert len(reads) == 1
    assert tokens.is_valid(tokens.of("run", "step", 1), "run", "step", 1)  # others continue meanwhile


def test_an_outcome_with_a_key_that_may_be_new_comes_again_and_counts(batches: Batches) -> None:
    patient = Process(replace(batches.resources, signing_keys_again_s=3600))
    patient.session.tokens.require()
    rotate(batches.resources)
    batches.start()
    payload, link = asking_and_running(batches)
    message = sqs_event([destination(payload, {})])
    assert patient.consumer.advance(message) == {
        "batchItemFailures": [{"itemIdentifier": message["Records"][0]["messageId"]}]
    }
    assert finish(batches, payload, link) is RunStatus.COMPLETED


def test_what_a_dropped_key_signed_is_refused_and_its_attempt_is_made_again(batches: Batches, clock: Any) -> None:
    payload, link = asking_and_running(batches)
    rotated = rotate(batches.resources, drop_older=True)
    assert len(rotated.all) == 1
    batches.start()
    assert finish(batches, payload, link) is RunStatus.RUNNING  # neither took effect
    batches.answer = lambda ctx: {"ok": True}
    clock.shift(timedelta(hours=1, minutes=16, seconds=1))  # the age of an invocation, the step's timeout, a minute
    batches.scheduler.sweep(range(8))
    batches.drain()
    assert [payload["ctx"]["attempt"] for payload in batches.invoked if payload["ctx"]["step_id"] == "slow"] == [1, 2]
    ((stored, _),) = batches.runs()
    plan = batches.session.store.batch(now_ms()).load([stored.run.id])[stored.run.id].plan
    new_link = batches.session.links().of(plan, stored.run, 0)[0].rpartition("/")[2]
    assert finish(batches, batches.invoked[-1], new_link) is RunStatus.COMPLETED


def test_single_keys_are_dropped_but_not_the_one_that_signs(resources: Resources) -> None:
    first = keys(resources).current.id
    second = rotate(resources).current.id
    third = rotate(resources).current.id
    signing_keys.drop(client("ssm"), resources, [first])
    assert [key.id for key in keys(resources).all] == [third, second]
    with pytest.raises(CannotChange, match="is the current key"):
        signing_keys.drop(client("ssm"), resources, [third])
    with pytest.raises(CannotChange, match="there is no signing key 'nothing'"):
        signing_keys.drop(client("ssm"), resources, ["nothing"])


def test_a_key_counts_as_long_as_an_approval_can_be_open_after_it_was_retired(resources: Resources, clock: Any) -> None:
    first = keys(resources).current.id
    rotate(resources)
    clock.shift(timedelta(milliseconds=KEPT_MS - 1))
    assert first in keys(resources).signing_keys(now_ms()).secrets
    clock.shift(timedelta(milliseconds=1))
    assert first not in keys(resources).signing_keys(now_ms()).secrets
    assert first not in [key.id for key in rotate(resources).all]  # the next rotation removes it


def test_the_parameter_never_holds_more_keys_than_have_room(resources: Resources) -> None:
    while len(keys(resources).all) < signing_keys.MOST_KEYS:
        rotate(resources)
    with pytest.raises(CannotChange, match="drop some"):
        rotate(resources)
    value = client("ssm").get_parameter(Name=PARAMETER, WithDecryption=True)["Parameter"]["Value"]
    assert len(value) < 4096
    assert len(rotate(resources, drop_older=True).all) == 1


def test_who_rotates_while_somebody_else_does_is_told(resources: Resources) -> None:
    read = keys(resources)
    rotate(resources)
    with pytest.raises(CannotChange, match="at the same time"):
        signing_keys._put(client("ssm"), resources, read.rotated(now_ms()))


# --- creating the parameter ------------------------------------------------------------------------------------------


def without_keys(resources: Resources) -> None:
    client("ssm").delete_parameter(Name=PARAMETER)


def as_of_older_version(batches: Batches) -> None:
    """The secret is an item of the table, and the upgrade has just created the parameter from it."""
    without_keys(batches.resources)
    batches.outside_db.put_item(TableName=batches.resources.table, Item={**SECRET, "k": {"B": OLD_SECRET}})
    signing_keys.make_keys(client("ssm"), batches.resources, now_ms())
    batches.start()


def secret_in_table(batches: Batches) -> Any:
    return batches.outside_db.get_item(TableName=batches.resources.table, Key=SECRET).get("Item")


def test_the_parameter_is_a_secure_string_and_stays_when_it_is_made_again(resources: Resources) -> None:
    without_keys(resources)
    signing_keys.make_keys(client("ssm"), resources, now_ms())
    made = client("ssm").get_parameter(Name=PARAMETER, WithDecryption=True)["Parameter"]
    assert (made["Type"], made["Version"]) == ("SecureString", 1)
    written = json.loads(made["Value"])
    assert written == {"current": written["current"], "keys": {written["current"]: written["keys"][written["current"]]}}
    signing_keys.make_keys(client("ssm"), resources, now_ms())
    assert client("ssm").get_parameter(Name=PARAMETER, WithDecryption=True)["Parameter"] == made


def test_it_is_encrypted_with_the_environments_own_key_if_that_has_one(resources: Resources) -> None:
    key = client("kms").create_key()["KeyMetadata"]["Arn"]
    before = keys(resources).all
    signing_keys.encrypt_again(client("ssm"), replace(resources, kms_key=key))
    (described,) = client("ssm").describe_parameters()["Parameters"]
    assert described["KeyId"] == key
    assert keys(resources).all == before


def test_until_every_lambda_is_new_an_upgraded_environment_signs_as_the_older_version(batches: Batches) -> None:
    as_of_older_version(batches)
    payload, link = asking_and_running(batches)
    ctx = payload["ctx"]
    text = f"{ctx['run_id']}/{ctx['step_id']}/{ctx['attempt']}".encode()
    assert ctx["token"] == hmac.digest(OLD_SECRET, text, hashlib.sha256)[:16].hex()
    signed, _, signature = link.rpartition(".")
    assert signature == hmac.digest(OLD_SECRET, b"approval:" + signed.encode(), hashlib.sha256)[:16].hex()
    assert secret_in_table(batches) is not None


def test_links_and_attempts_of_the_older_version_count_after_the_upgrade(batches: Batches) -> None:
    as_of_older_version(batches)
    payload, link = asking_and_running(batches)
    signing_keys.leave_table(client("ssm"), batches.resources, now_ms())
    signing_keys.leave_table(client("ssm"), batches.resources, now_ms())  # CloudFormation may send a request twice
    assert secret_in_table(batches) is None
    assert OLD_SECRET not in secrets_in(batches)
    now, older = keys(batches.resources).all
    assert (older.id, older.secret) == (UNNAMED, OLD_SECRET)
    assert key_of(Process(batches.resources).session.tokens.of("run", "step", 1)) == now.id != UNNAMED
    assert finish(batches, payload, link) is RunStatus.COMPLETED


def test_a_secret_that_somebody_puts_into_the_table_later_counts_for_nothing(batches: Batches) -> None:
    """For example a parameter from an older backup."""
    batches.outside_db.put_item(TableName=batches.resources.table, Item={**SECRET, "k": {"B": OLD_SECRET}})
    before = keys(batches.resources).all
    signing_keys.make_keys(client("ssm"), batches.resources, now_ms())
    signing_keys.leave_table(client("ssm"), batches.resources, now_ms())
    assert keys(batches.resources).all == before
    assert secret_in_table(batches) is None
    forged = single_key(OLD_SECRET).sign(b"run/step/1")
    assert not Process(batches.resources).session.tokens.is_valid(forged, "run", "step", 1)


def test_a_lost_parameter_is_made_again_by_a_rotation(resources: Resources) -> None:
    without_keys(resources)
    with pytest.raises(NoKeys, match="create it with `stepwell signing-keys rotate --env test`"):
        keys(resources)
    assert rotate(resources).current == keys(resources).current


# --- SSM cannot be reached -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [DOWN, THROTTLED], ids=["down", "throttled"])
def test_no_event_and_no_outcome_is_lost_while_the_keys_cannot_be_read(
    batches: Batches, clock: Any, error: Exception
) -> None:
    batches.deploy({"a": handler_step(), "b": handler_step("a")})
    batches.send()
    with ssm_requests(error):
        batches.start()
        batches.route()
        assert batches.runs() == []  # no batch is begun that could not be completed
    clock.shift(timedelta(minutes=10))  # the message is visible again
    batches.route()
    with ssm_requests(error):
        batches.start()
        batches.advance()
        ((_, attempts),) = batches.runs()
        assert attempts == []
    clock.shift(timedelta(minutes=10))
    batches.drain()
    ((stored, _),) = batches.runs()
    assert stored.run.status is RunStatus.COMPLETED


def test_keys_that_are_known_stay_in_use_while_they_cannot_be_read_again(resources: Resources) -> None:
    now = 1000.0
    tokens = Tokens(replace(resources, signing_keys_again_s=5), lambda: now)
    token = tokens.of("run", "step", 1)
    now += 3600
    with ssm_requests(DOWN) as asked:
        for _ in range(10):
            assert tokens.is_valid(token, "run", "step", 1)
        assert asked == ["GetParameter"]  # but not for each of them


def test_an_outcome_is_not_refused_because_its_key_cannot_be_looked_up(batches: Batches) -> None:
    warm = batches.process
    warm.session.tokens.require()
    rotate(batches.resources)
    batches.start()
    payload, link = asking_and_running(batches)
    message = sqs_event([destination(payload, {})])
    with ssm_requests(DOWN):
        assert len(warm.consumer.advance(message)["batchItemFailures"]) == 1
    assert finish(batches, payload, link, warm) is RunStatus.COMPLETED


def test_a_decision_is_not_begun_while_the_keys_cannot_be_read(batches: Batches) -> None:
    _, token = asking_and_running(batches)
    link = batches.session.links().read(token)
    assert link is not None
    cold = Process(batches.resources)
    with ssm_requests(DOWN), pytest.raises(KeysUnreadable):
        cold.control.decide(link, decided(link.decision, None, None, now_ms()))
    assert cold.control.decide(link, decided(link.decision, None, None, now_ms()))
