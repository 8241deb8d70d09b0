"""Tests of a function with an approval: the test decides, or lets the time run out.

Run with: pytest examples/approval
"""

from pathlib import Path

import pytest


@pytest.fixture(params=["stepwell", "stepwell_aws"])
def platform(request):
    """Each test runs twice: locally, and on an emulated AWS."""
    platform = request.getfixturevalue(request.param)
    platform.deploy(Path(__file__).parent)
    return platform


def refund(platform, amount):
    (run,) = platform.runs(platform.send("refund/requested", {"amount": amount}, user={"email": "ada@example.com"}))
    return run


def test_a_large_refund_is_paid_when_it_is_approved(platform):
    run = refund(platform, 250)
    assert run["steps"]["confirm"]["approval"]["message"] == "Pay 250 EUR back to ada@example.com?"
    platform.approve(run["id"], by="Grace")
    assert platform.run(run["id"])["output"] == {"pay": {"paid": True}}


def test_a_declined_refund_is_refused_with_the_reason(platform):
    run = refund(platform, 250)
    platform.decline(run["id"], comment="it was used")
    assert platform.run(run["id"])["output"] == {"refuse": {"mail": "We cannot pay you back: it was used"}}


def test_a_refund_without_a_decision_is_escalated_after_two_days(platform):
    run = refund(platform, 250)
    platform.travel("2d")
    assert "escalate" in platform.run(run["id"])["output"]
