"""How a function that asks people is tested: the test decides, or lets the time run out.

Run with: pytest examples/approval
"""

from pathlib import Path

import pytest


@pytest.fixture(params=["stepwell", "stepwell_aws"])
def platform(request):
    """Each test runs twice: on one machine, and on an emulated AWS."""
    platform = request.getfixturevalue(request.param)
    platform.deploy(Path(__file__).parent)
    return platform


def a_refund(platform, amount):
    (run,) = platform.runs(platform.send("refund/requested", {"amount": amount}, user={"email": "ada@example.com"}))
    return run


def test_a_large_refund_is_paid_once_it_is_approved(platform):
    run = a_refund(platform, 250)
    assert run["steps"]["confirm"]["approval"]["message"] == "Pay 250 EUR back to ada@example.com?"
    platform.approve(run["id"], by="Grace")
    assert platform.run(run["id"])["output"] == {"pay": {"paid": True}}


def test_one_that_is_declined_is_refused_with_the_reason(platform):
    run = a_refund(platform, 250)
    platform.decline(run["id"], comment="it was used")
    assert platform.run(run["id"])["output"] == {"refuse": {"mail": "We cannot pay you back: it was used"}}


def test_if_nobody_decides_in_two_days_somebody_is_told(platform):
    run = a_refund(platform, 250)
    platform.travel("2d")
    assert "escalate" in platform.run(run["id"])["output"]
