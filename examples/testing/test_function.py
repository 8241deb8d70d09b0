"""How functions are tested: real steps, no network, and three days pass in no time.

Run with: pytest examples/testing

Whatever is sent is routed when `send` returns, and what `run`, `runs`, `event` and `events` show has settled: nothing
moves any more but what waits for time, events or people. So no test waits by itself. All words, and what they wait for,
are in `stepwell.testing.platform`.
"""

from pathlib import Path

import pytest

FUNCTION = Path(__file__).parent
ADA = {"email": "ada@example.com"}


@pytest.fixture(params=["stepwell", "stepwell_aws"])
def platform(request):
    """Each test runs twice: on one machine, and on an emulated AWS."""
    platform = request.getfixturevalue(request.param)
    platform.deploy(FUNCTION)
    return platform


def test_who_orders_nothing_is_nudged_after_three_days(platform):
    (run,) = platform.runs(platform.send("user/signed.up", user=ADA))
    assert run["steps"]["greet"]["output"] == {"greeted": "ada@example.com"}
    assert run["steps"]["nudge"]["status"] == "waiting"
    platform.travel("3d")
    run = platform.run(run["id"])
    assert (run["status"], run["output"]) == ("completed", {"nudge": {"nudged": "ada@example.com"}})


def test_who_orders_is_left_alone(platform):
    (run,) = platform.runs(platform.send("user/signed.up", user=ADA))
    platform.travel("1d")
    platform.send("order/placed", {"total": 30}, user=ADA)
    platform.travel("3d")
    run = platform.run(run["id"])
    assert (run["status"], run["steps"]["nudge"]["status"]) == ("completed", "skipped")
