"""An ended attempt is read from the item of the run as it was written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from stepwell.aws.engine.results import erased
from stepwell.aws.table.stored_attempts import StoredAttempt

SINCE = 1_780_308_030_000
WHOLE = StoredAttempt(
    step=3,
    attempt=2,
    status="failed",
    queued_at=SINCE + 1,
    started_at=SINCE + 20,
    ended_at=SINCE + 300,
    error=b'{"kind":"exit","message":"no","status":null,"output":null}',
    request_id="0f9de17a-6465-404e-8b1b-2356dc13c2f8",
)
DIFFERENT: dict[str, dict[str, Any]] = {
    "as it is": {},
    "completed": {"status": "completed", "output": b'{"n":1}', "error": None},
    "with null as its output": {"status": "completed", "output": b"null", "error": None},
    "with null as its output, of no request": {"output": b"null", "error": None, "request_id": None},
    "with an output that is false": {"output": b"false", "error": None},
    "lost": {"status": "lost", "request_id": None},
    "never started": {"status": "cancelled", "started_at": None, "error": None},
    "of an earlier run": {"status": "kept", "attempt": 0, "error": None, "request_id": None},
    "from before its run was made": {"queued_at": SINCE - 5, "started_at": SINCE - 4, "ended_at": SINCE - 3},
    "at the moment at which its run was made": {"queued_at": SINCE, "started_at": SINCE, "ended_at": SINCE},
    "of a container": {"request_id": "0f9de17a6465404e8b1b2356dc13c2f8"},  # the format of ECS task ids
    "of a request with another name": {"request_id": "0F9DE17A-6465-404E-8B1B-2356DC13C2F8"},
    "of a request that is no UUID": {"request_id": "a task"},
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_an_attempt_comes_back_as_it_was(name: str) -> None:
    attempt = replace(WHOLE, **DIFFERENT[name])
    row = orjson.loads(orjson.dumps(attempt.to_json(SINCE)))
    assert StoredAttempt.from_json(row, SINCE) == attempt


def test_a_result_that_stands_elsewhere_is_named_and_not_repeated() -> None:
    attempt = replace(WHOLE, output=b'{"n":1}', ref="a#3#2#digest")
    row = orjson.loads(orjson.dumps(attempt.to_json(SINCE)))
    assert StoredAttempt.from_json(row, SINCE) == replace(attempt, output=None, error=None)


def test_a_null_that_stands_elsewhere_is_not_repeated_either() -> None:
    attempt = replace(WHOLE, output=b"null", error=None, ref="a#3#2#digest")
    row = orjson.loads(orjson.dumps(attempt.to_json(SINCE)))
    assert StoredAttempt.from_json(row, SINCE).output is None


def test_what_has_no_value_takes_no_room() -> None:
    """Every transition of a run writes all attempts of it."""
    assert replace(WHOLE, status="cancelled", error=None, request_id=None).to_json(SINCE) == [3, 2, 3, 1, 20, 300]
    assert len(str(WHOLE.to_json(SINCE)[8])) == 22  # the id of a request


def test_the_size_of_an_attempt_is_that_of_its_results() -> None:
    assert replace(WHOLE, output=b"12", error=b"345").size == 5
    assert replace(WHOLE, output=None, error=None).size == 0


def test_of_an_erased_users_attempt_no_text_is_kept() -> None:
    attempt = replace(
        WHOLE,
        output=b'"ada"',
        error=orjson.dumps({"kind": "exit", "message": "no such user: ada", "status": 404, "output": {"name": "ada"}}),
        ref="a#3#2#digest",
    )
    error = orjson.dumps({"kind": "exit", "message": "erased", "status": 404, "output": None})
    assert erased(attempt) == replace(WHOLE, error=error, request_id=None)
    assert erased(replace(attempt, error=None)) == replace(WHOLE, error=None, request_id=None)
