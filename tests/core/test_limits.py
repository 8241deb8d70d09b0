"""Tests the documented limits against literal numbers. Other tests use the constants of the code."""

from __future__ import annotations

import pytest

from stepwell.aws.api import logs
from stepwell.aws.signing.signing_keys import KEPT_MS
from stepwell.core.cel.limits import MAX_SOURCE_BYTES
from stepwell.core.duration import LONGEST_MS
from stepwell.core.events import envelope, request, users
from stepwell.core.json_input import MAX_LEVELS
from stepwell.core.routing.idempotency import WINDOW_MS
from stepwell.core.run.approvals import MOST_BY, MOST_COMMENT
from stepwell.core.run.attempt_result import MAX_LOSSES
from stepwell.core.run.inputs import MAX_INPUT_BYTES
from stepwell.core.run.outcome import MAX_OUTPUT_BYTES
from stepwell.local.runners import program, router

LIMITS = {
    "events of a request": (request.MAX_EVENTS, 1_000),
    "bytes of an event": (envelope.MAX_EVENT_BYTES, 262_144),
    "bytes of a request's body": (request.MAX_BODY_BYTES, 4_194_304),
    "levels of an event": (MAX_LEVELS, 128),
    "bytes of an output": (MAX_OUTPUT_BYTES, 262_144),
    "bytes of a step's input": (MAX_INPUT_BYTES, 655_360),
    "bytes of an attempt's log": (router.MAX_LOG_BYTES, 4_194_304),
    "bytes of an attempt's log on AWS": (logs.MAX_LOG_BYTES, 4_194_304),
    "milliseconds for which a key counts after it was retired": (
        KEPT_MS,
        31_708_800_000,
    ),  # longer than the default of an approval
    "bytes of a program's argument": (program.MAX_ARGUMENT_BYTES, 98_304),
    "losses of a step": (MAX_LOSSES, 4),
    "milliseconds of a delay or a ttl": (LONGEST_MS, 31_622_400_000),
    "milliseconds for which a value of idempotency counts": (WINDOW_MS, 86_400_000),
    "bytes of an expression": (MAX_SOURCE_BYTES, 2_048),
    "ids of a user": (users.MOST_IDS, 100),
    "traits of a user": (users.MOST_TRAITS, 100),
    "characters of a decision's comment": (MOST_COMMENT, 2_000),
    "characters of who decided": (MOST_BY, 256),
}


@pytest.mark.parametrize("what", LIMITS)
def test_a_limit_is_the_documented_one(what: str) -> None:
    limit, promised = LIMITS[what]
    assert limit == promised
