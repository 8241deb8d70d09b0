"""Pending outcomes of a wide run: which of them a fold uses."""

from __future__ import annotations

from collections.abc import Sequence

from stepwell.aws.resources import Resources
from stepwell.aws.table.items import put_items, read_items
from stepwell.aws.table.keys import Item, Key
from stepwell.aws.table.pending_outcomes import Ended, outcome_items, read_outcomes
from stepwell.core.compile import compile_plan
from stepwell.core.definition.definition import parse_definition
from stepwell.core.run.messages import AttemptEnded, Error, Outcome
from stepwell.core.run.run import Run, StepState, StepStatus, new_run

NOW, TTL, REVISION = 1_780_308_030_000, 1_790_000_000, 7
FIRST, SECOND = Outcome(output=b'"first"'), Outcome(output=b'"second"')


def running(attempt: int = 1) -> Run:
    """A run with two steps that both run this attempt."""
    step = {"path": "file://."}
    raw = {"id": "f", "triggers": [{"event": "go"}], "steps": {"a": step, "b": step}}
    run = new_run("run", compile_plan(parse_definition(raw).normalised(), 1), NOW)
    state = StepState(StepStatus.RUNNING, attempt=attempt)
    return run._replace(steps=(state, state))


def write(resources: Resources, at: int, *ended: Ended, revision: int = REVISION) -> None:
    put_items(resources.table, outcome_items("run", revision, ended, at, TTL))


def read(resources: Resources, run: Run, revision: int = REVISION) -> list[Ended]:
    def read_long(keys: Sequence[Key]) -> list[Item]:
        return read_items(resources.table, keys, consistent=True)

    return read_outcomes(resources.table, run, revision, read_long)


def ended(step: int, outcome: Outcome, attempt: int = 1) -> Ended:
    return Ended(AttemptEnded(step, attempt, outcome), f"request {step}")


def found(outcomes: list[Ended]) -> list[tuple[int, Outcome]]:
    return [(item.fact.step, item.fact.outcome) for item in outcomes]


def test_of_two_outcomes_of_one_attempt_the_one_that_was_written_down_earlier_counts(resources: Resources) -> None:
    write(resources, NOW + 5, ended(0, SECOND))
    write(resources, NOW, ended(0, FIRST))
    assert found(read(resources, running())) == [(0, FIRST)]


def test_within_one_batch_the_first_outcome_of_an_attempt_counts(resources: Resources) -> None:
    write(resources, NOW, ended(0, FIRST), ended(0, SECOND))
    assert found(read(resources, running())) == [(0, FIRST)]


def test_an_outcome_of_an_earlier_attempt_does_not_count(resources: Resources) -> None:
    write(resources, NOW, ended(0, FIRST, attempt=1), ended(1, SECOND, attempt=2))
    assert found(read(resources, running(attempt=2))) == [(1, SECOND)]


def test_outcomes_are_read_with_all_that_was_written_of_them_the_earliest_first(resources: Resources) -> None:
    long = Outcome(output=b'"' + b"x" * 5_000 + b'"')
    failure = Outcome(error=Error("exit", "exit status 1", 500, b'{"n":1}'), retryable=False, retry_after_ms=77)
    write(resources, NOW + 1, ended(0, long))
    write(resources, NOW, ended(1, failure))
    outcomes = read(resources, running())
    assert found(outcomes) == [(1, failure), (0, long)]
    assert [(item.fact.at, item.request_id) for item in outcomes] == [(NOW, "request 1"), (NOW + 1, "request 0")]


def test_what_waits_is_looked_for_two_revisions_back_and_no_further(resources: Resources) -> None:
    write(resources, NOW, ended(0, FIRST), revision=REVISION - 2)
    write(resources, NOW, ended(1, FIRST), revision=REVISION - 3)
    assert found(read(resources, running())) == [(0, FIRST)]
