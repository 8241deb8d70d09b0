"""The tables of docs/operate/cost.md match the stored counts, and the counts match the handlers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"
AGAIN = "count again with `python bench/aws_cost.py --write-docs`"
EXACT = ("invocations", "bus_events", "queue_requests", "write_units", "read_units")


@pytest.fixture(scope="module", autouse=True)
def bench() -> Iterator[None]:
    sys.path.insert(0, str(BENCH))
    yield
    sys.path.remove(str(BENCH))


def test_the_page_matches_the_stored_counts() -> None:
    from aws_cost import DOCS, saved
    from aws_dollars import Bill
    from aws_report import in_docs

    page = DOCS.read_text()

    assert in_docs(page, Bill(saved())) == page, "run `python bench/aws_cost.py --from-saved --write-docs`"


def test_the_stored_counts_meet_every_aim() -> None:
    from aws_cost import saved
    from aws_dollars import AIMS, Bill

    bill = Bill(saved())

    assert [text for text, holds in AIMS if not holds(bill)] == []


@pytest.mark.parametrize("batch", [1, 10])
def test_a_run_of_three_steps_makes_the_stored_number_of_requests(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import aws_harness
    from aws_cost import saved
    from aws_stories import chain, deployed, measure

    monkeypatch.setattr(aws_harness, "HOLD_S", 0)
    with deployed(chain(3)) as harness:
        counts = measure(harness, batch).counts()
    kept = saved()["workloads"][f"three steps, batch {batch}"]

    assert _exact(counts) == _exact(kept), AGAIN
    assert counts["sent_by_services"] == kept["sent_by_services"], AGAIN
    assert counts["queues"]["outcomes"]["bytes"] == pytest.approx(kept["queues"]["outcomes"]["bytes"], rel=0.05), AGAIN


def test_pollers_deliver_single_messages_until_all_are_busy() -> None:
    from aws_pollers import POLLERS, hand_over

    assert hand_over(1, lambda batch: 0.03, POLLERS).batch == 1
    assert 1 < hand_over(200, lambda batch: 0.03, POLLERS).batch < 10
    assert hand_over(2000, lambda batch: 0.03, POLLERS).batch > 9


def test_receives_are_empty_without_traffic_and_full_with_much_traffic() -> None:
    from aws_pollers import LONG_POLL_S, POLLERS, hand_over

    assert hand_over(0.001, lambda batch: 0.03, POLLERS).empty_s == pytest.approx(POLLERS / LONG_POLL_S, rel=0.05)
    assert hand_over(10, lambda batch: 0.03, POLLERS).empty_s == 0


def test_a_batching_window_collects_messages() -> None:
    from aws_pollers import POLLERS, hand_over

    handed = hand_over(20, lambda batch: 0.03, POLLERS, window_s=1)

    assert 3 < handed.batch < 7
    assert handed.receives == pytest.approx(1, abs=0.01)


def test_standing_resources_are_counted_in_the_template() -> None:
    from aws_standing import counted

    def of(kind: str, **properties: Any) -> Any:
        return {"Type": f"AWS::{kind}", "Properties": properties}

    quiet = {"SystemLogLevel": "WARN"}
    resources = [
        of("CloudWatch::Alarm"),
        of("Lambda::EventSourceMapping", ScalingConfig={"MaximumConcurrency": 20}),
        of("Lambda::EventSourceMapping"),
        of("DynamoDB::Table", PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": False}),
        of("Lambda::Function", Handler="lambdas.route.handler", LoggingConfig=quiet),
        of("Lambda::Function", Handler="lambdas.step_http.handler"),
    ]

    found = counted({"Resources": dict(enumerate(resources))})

    assert (found["alarms"], found["dashboards"], found["tables_with_recovery"]) == (1, 0, 0)
    assert (found["mappings"], found["mappings_with_maximum"]) == (2, 1)
    assert found["system_logs"] == ["step_http"]


def test_an_idle_queue_has_five_pollers_with_a_maximum_concurrency_and_two_without() -> None:
    from aws_bill import Environment

    assert Environment({"mappings": 2, "mappings_with_maximum": 2}).pollers == 10
    assert Environment({"mappings": 2, "mappings_with_maximum": 0}).pollers == 4


def test_the_custom_metrics_are_found_in_the_code_that_writes_them() -> None:
    from aws_standing import metrics

    assert {"EventsAccepted", "RunsCompleted", "RunsFailed", "StepDuration", "MessageLag"} <= set(metrics())


def _exact(counts: Any) -> Any:
    return {
        handler: {name: round(counted[name], 2) for name in EXACT} for handler, counted in counts["handlers"].items()
    }
