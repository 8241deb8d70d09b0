"""Tests of a function: the steps really run, there is no network, and three days pass in an instant.

Run with: pytest examples/testing

When `send` returns, the event has started its runs. `run`, `runs`, `event` and `events` wait until everything that is
still open waits for time, events or people, so tests need no waiting of their own. All methods are described in
`stepwell.testing.platform`.
"""

from pathlib import Path

import pytest

FUNCTION = Path(__file__).parent
ADA = {"email": "ada@example.com"}


@pytest.fixture(params=["stepwell", "stepwell_aws"])
def platform(request):
    """Each test runs twice: locally, and on an emulated AWS."""
    platform = request.getfixturevalue(request.param)
    platform.deploy(FUNCTION)
    return platform


def test_a_user_without_an_order_is_reminded_after_three_days(platform):
    (run,) = platform.runs(platform.send("user/signed.up", user=ADA))
    assert run["steps"]["greet"]["output"] == {"greeted": "ada@example.com"}
    assert run["steps"]["nudge"]["status"] == "waiting"
    platform.travel("3d")
    run = platform.run(run["id"])
    assert (run["status"], run["output"]) == ("completed", {"nudge": {"nudged": "ada@example.com"}})


def test_a_user_with_an_order_is_not_reminded(platform):
    (run,) = platform.runs(platform.send("user/signed.up", user=ADA))
    platform.travel("1d")
    platform.send("order/placed", {"total": 30}, user=ADA)
    platform.travel("3d")
    run = platform.run(run["id"])
    assert (run["status"], run["steps"]["nudge"]["status"]) == ("completed", "skipped")
