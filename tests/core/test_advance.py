"""Tests how each fact changes a run. Commands are compared as complete lists."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from stepwell.core.cel.answer import Answer
from stepwell.core.compile import compile_plan
from stepwell.core.definition.definition import parse_definition
from stepwell.core.plan import TRIGGER, Plan, Runtime
from stepwell.core.run.advance import Decision, advance, used_events
from stepwell.core.run.answers import NO_ANSWERS, NO_QUESTIONS, Answers, Moment, Questions, WaitKey
from stepwell.core.run.messages import (
    AttemptEnded,
    AttemptLost,
    AttemptStarted,
    CancelRequested,
    CarriedOver,
    ClearTimer,
    CloseWait,
    Command,
    DeadlinePassed,
    DelayEnded,
    EmitEnd,
    Error,
    EventArrived,
    Fact,
    OpenWait,
    Outcome,
    RecordAttempt,
    RetryDue,
    RunResumed,
    RunStarted,
    RunStep,
    RunTimedOut,
    SetTimer,
    StepKept,
    StopStep,
    Timer,
    TimerKind,
    timer_of,
)
from stepwell.core.run.outstanding import outstanding
from stepwell.core.run.questions import questions
from stepwell.core.run.run import (
    EdgeStatus,
    PauseState,
    PauseStatus,
    Run,
    RunStatus,
    StepState,
    StepStatus,
    new_run,
    pack,
    unpack,
)

NOW = 1_000_000
SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000
A, B, C, D, E, F = range(6)  # steps, in the order of a test's plan

OK = Outcome(output=b"1")
BOOM = Error("exit", "exit status 1")
RETRYABLE, FINAL = Outcome(error=BOOM), Outcome(error=BOOM, retryable=False)
KEY = b"key"
BROKEN = "data.x"
ANSWERS = {"true": Answer(True), "false": Answer(False), BROKEN: Answer(False, "no such key: x")}


def after(parent: str, **fields: Any) -> dict[str, Any]:
    """An edge. `if_` and `async_` are the fields `if` and `async`, which are keywords in Python."""
    return {"step": parent, **{name.rstrip("_"): value for name, value in fields.items()}}


def plan_of(cancel: list[dict[str, Any]] | None = None, **steps: dict[str, Any]) -> Plan:
    """A plan of these steps. A step has no retries unless it sets `retries`."""
    defaults = {"path": "file://.", "retries": {"attempts": 0}}
    definition = {
        "id": "f",
        "triggers": [{"event": "go"}],
        "steps": {step_id: {**defaults, **step} for step_id, step in steps.items()},
        "cancel": cancel,
    }
    return compile_plan(parse_definition(definition).normalised(), 1)


class Story:
    """A run into which a test folds facts. An `if` is true if it is literally `true`, and has no value if it is BROKEN.
    Every wait has the key KEY."""

    def __init__(self, cancel: list[dict[str, Any]] | None = None, **steps: dict[str, Any]) -> None:
        self.plan = plan_of(cancel, **steps)
        self.run = new_run("run", self.plan, NOW)
        self.moments: dict[int, Moment] = {}  # of `wait.until`, by edge

    def decide(self, fact: Fact, now: int = NOW) -> Decision:
        asked = questions(self.plan, self.run, fact)
        answers = Answers(
            {e: ANSWERS[self.plan.edges[e].condition or ""] for e in asked.edges},
            {p: WaitKey(KEY) for p in asked.pauses},
            {e: self.moments[e] for e in asked.moments},
        )
        return advance(self.plan, self.run, fact, answers, now)

    def fold(self, fact: Fact, now: int = NOW) -> list[Command]:
        decision = self.decide(fact, now)
        self.run = decision.run
        assert unpack("run", pack(self.run)) == self.run
        return list(decision.commands)

    def begin(self) -> list[Command]:
        return self.fold(RunStarted())

    def end(self, step: int, outcome: Outcome = OK, attempt: int = 1) -> list[Command]:
        """Claims an attempt, then ends it."""
        assert self.fold(AttemptStarted(step, attempt)) == []
        return self.fold(AttemptEnded(step, attempt, outcome))

    def ignores(self, fact: Fact) -> bool:
        """Whether the fact changes nothing, and returns exactly the outstanding commands again."""
        return self.decide(fact) == Decision(self.run, tuple(outstanding(self.plan, self.run)))

    @property
    def status(self) -> str:
        return self.run.status.name.lower()

    @property
    def steps(self) -> str:
        """The statuses of the steps, in the order of the definition."""
        return " ".join(step.status.name.lower() for step in self.run.steps)

    @property
    def edges(self) -> str:
        return " ".join(edge.name.lower() for edge in self.run.edges)

    @property
    def pauses(self) -> str:
        return " ".join(pause.status.name.lower() for pause in self.run.pauses)


def record(step: int, status: str, attempt: int = 1, **fields: Any) -> RecordAttempt:
    times = {"queued_at": NOW, "started_at": NOW, "ended_at": NOW}
    return RecordAttempt(step, attempt, status, **{**times, **fields})


def completed(step: int, attempt: int = 1, **fields: Any) -> RecordAttempt:
    return record(step, "completed", attempt, output=b"1", **fields)


def failed(step: int, attempt: int = 1, **fields: Any) -> RecordAttempt:
    return record(step, "failed", attempt, error=BOOM, **fields)


def lost(step: int, attempt: int = 1) -> RecordAttempt:
    error = Error("lost", f"the server or worker was lost during attempt {attempt}")
    return record(step, "lost", attempt, error=error)


def delay(pause: int = 0) -> Timer:
    return Timer(TimerKind.DELAY, pause)


def deadline(pause: int = 0) -> Timer:
    return Timer(TimerKind.DEADLINE, pause)


def retry(step: int, attempt: int = 1) -> Timer:
    return Timer(TimerKind.RETRY, step, attempt)


def opened(pause: int = 0, until: int = NOW + HOUR) -> list[Command]:
    return [SetTimer(deadline(pause), until), OpenWait(pause, KEY, until)]


def closed(pause: int = 0) -> list[Command]:
    return [ClearTimer(deadline(pause)), CloseWait(pause)]


WAIT = {"event": "paid", "ttl": "1h"}
TIMEOUT = {**WAIT, "onTimeout": True}
SKIPPED = {"after": [after("$trigger", if_="false")]}


# --- start and claim -------------------------------------------------------------------------------------------------


def test_a_run_starts_the_steps_that_come_after_the_trigger() -> None:
    plan = plan_of(a={}, b={"after": [after("$trigger")]}, c={"after": [after("a")]})
    run = new_run("run", plan, NOW)
    queued = StepState(StepStatus.QUEUED, attempt=1, at=NOW + 1, queued_at=NOW + 1)
    assert advance(plan, run, RunStarted(), NO_ANSWERS, NOW + 1) == Decision(
        Run(
            id="run",
            status=RunStatus.RUNNING,
            created_at=NOW,
            started_at=None,
            ended_at=None,
            steps=(queued, queued, StepState()),
            edges=(EdgeStatus.SATISFIED, EdgeStatus.SATISFIED, EdgeStatus.PENDING),
            pauses=(),
        ),
        (RunStep(A, 1), RunStep(B, 1)),
    )


def test_a_claim_starts_the_attempt_and_the_first_one_the_run() -> None:
    story = Story(a={}, b={})
    story.begin()
    before = story.run
    first = story.decide(AttemptStarted(A, 1), NOW + 5)
    assert first == Decision(
        before._replace(
            started_at=NOW + 5,
            steps=(StepState(StepStatus.RUNNING, attempt=1, at=NOW + 5, queued_at=NOW), before.steps[B]),
        ),
        (),
    )
    story.run = first.run
    assert story.fold(AttemptStarted(B, 1), NOW + 9) == []
    assert story.run.started_at == NOW + 5


def test_a_repeated_claim_is_refused_and_returns_no_commands() -> None:
    story = Story(a={}, b={})
    story.begin()
    story.fold(AttemptStarted(A, 1))
    assert story.decide(AttemptStarted(A, 1)) == Decision(story.run, ())
    assert story.decide(AttemptStarted(A, 1)).run is story.run


def test_a_claim_of_another_attempt_or_of_a_step_not_queued_is_refused() -> None:
    story = Story(a={}, b={"after": [after("a")]})
    story.begin()
    for claim in (AttemptStarted(A, 0), AttemptStarted(A, 2), AttemptStarted(B, 0), AttemptStarted(B, 1)):
        assert story.decide(claim) == Decision(story.run, ())


def test_an_outcome_that_arrives_before_the_claim_is_not_accepted() -> None:
    story = Story(a={})
    story.begin()
    assert story.ignores(AttemptEnded(A, 1, OK))
    assert list(outstanding(story.plan, story.run)) == [RunStep(A, 1)]


# --- outcomes and the next steps -------------------------------------------------------------------------------------


def test_an_outcome_is_recorded_with_its_times_and_starts_the_next_steps() -> None:
    story = Story(a={}, b={"after": [after("a")]}, c={"after": [after("a")]}, d={"after": [after("b"), after("c")]})
    story.begin()
    story.fold(AttemptStarted(A, 1), NOW + 1)
    assert story.fold(AttemptEnded(A, 1, OK), NOW + 3) == [
        completed(A, started_at=NOW + 1, ended_at=NOW + 3),
        RunStep(B, 1),
        RunStep(C, 1),
    ]
    assert story.steps == "completed queued queued pending"
    assert story.run.steps[A] == StepState(StepStatus.COMPLETED, attempt=1)


def test_the_run_is_completed_with_its_last_step() -> None:
    story = Story(a={}, b={})
    story.begin()
    assert story.end(A) == [completed(A)]
    story.fold(AttemptStarted(B, 1))
    assert story.fold(AttemptEnded(B, 1, OK), NOW + 7) == [completed(B, ended_at=NOW + 7), EmitEnd("completed")]
    assert (story.status, story.run.ended_at) == ("completed", NOW + 7)


def test_a_repeated_outcome_changes_nothing() -> None:
    story = Story(a={}, b={"after": [after("a")]})
    story.begin()
    story.end(A)
    assert story.ignores(AttemptEnded(A, 1, OK))
    assert story.ignores(AttemptEnded(A, 1, RETRYABLE))
    assert list(outstanding(story.plan, story.run)) == [RunStep(B, 1)]


@pytest.mark.parametrize("outcome", [OK, RETRYABLE, FINAL])
def test_an_outcome_of_an_earlier_attempt_changes_nothing_while_a_later_one_runs(outcome: Outcome) -> None:
    """An attempt that was reported as lost was only slow."""
    story = Story(a={"retries": {"attempts": 4}}, b={"after": [after("a")]})
    story.begin()
    story.fold(AttemptStarted(A, 1))
    story.fold(AttemptLost(A, 1))
    story.fold(AttemptStarted(A, 2))
    assert story.ignores(AttemptEnded(A, 1, outcome))
    assert story.ignores(AttemptLost(A, 1))
    assert story.fold(AttemptEnded(A, 2, OK)) == [completed(A, 2), RunStep(B, 1)]


# --- joins -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("join", "if_a", "if_b", "after_a", "after_b"),
    [
        ("merge", "true", "true", "pending", "queued"),
        ("merge", "true", "false", "pending", "queued"),
        ("merge", "false", "true", "pending", "queued"),
        ("merge", "false", "false", "pending", "skipped"),
        ("all", "true", "true", "pending", "queued"),
        ("all", "true", "false", "pending", "skipped"),
        ("all", "false", "true", "skipped", "skipped"),  # at the first dead edge
        ("all", "false", "false", "skipped", "skipped"),
        ("first", "true", "true", "queued", "queued"),  # the step has started already
        ("first", "true", "false", "queued", "queued"),
        ("first", "false", "true", "pending", "queued"),
        ("first", "false", "false", "pending", "skipped"),
    ],
)
def test_a_join_decides_by_its_settled_edges(join: str, if_a: str, if_b: str, after_a: str, after_b: str) -> None:
    story = Story(a={}, b={}, c={"join": join, "after": [after("a", if_=if_a), after("b", if_=if_b)]})
    story.begin()
    started = [RunStep(C, 1)]
    assert story.end(A) == [completed(A), *(started if after_a == "queued" else [])]
    assert story.steps == f"completed queued {after_a}"
    assert story.end(B) == [
        completed(B),
        *(started if (after_a, after_b) == ("pending", "queued") else []),
        *([EmitEnd("completed")] if after_b == "skipped" else []),
    ]
    assert story.steps == f"completed completed {after_b}"


@pytest.mark.parametrize(
    ("join", "at_first", "in_the_end"),
    [("merge", "pending", "queued"), ("all", "skipped", "skipped"), ("first", "pending", "queued")],
)
def test_the_edges_of_a_skipped_step_are_dead(join: str, at_first: str, in_the_end: str) -> None:
    story = Story(a={}, b=SKIPPED, c={"join": join, "after": [after("a"), after("b", on="always")]})
    assert story.begin() == [RunStep(A, 1)]
    assert story.steps == f"queued skipped {at_first}"
    story.end(A)
    assert story.steps == f"completed skipped {in_the_end}"


@pytest.mark.parametrize("join", ["merge", "all", "first"])
def test_two_edges_from_one_parent_start_the_step_once(join: str) -> None:
    story = Story(a={}, b={"join": join, "after": [after("a"), after("a", on="always")]})
    story.begin()
    assert story.end(A) == [completed(A), RunStep(B, 1)]


@pytest.mark.parametrize(("join", "then"), [("merge", "queued"), ("all", "skipped"), ("first", "queued")])
@pytest.mark.parametrize("outcome", [OK, RETRYABLE])
def test_success_and_failure_of_one_parent_exclude_each_other(join: str, then: str, outcome: Outcome) -> None:
    story = Story(a={}, b={"join": join, "after": [after("a"), after("a", on="failure")]})
    story.begin()
    story.end(A, outcome)
    assert sorted(story.edges.split()[1:]) == ["dead", "satisfied"]
    assert story.run.steps[B].status is StepStatus[then.upper()]


def test_a_first_join_leaves_its_other_parents_running() -> None:
    story = Story(a={}, b={}, c={"join": "first", "after": [after("a"), after("b")]})
    story.begin()
    story.fold(AttemptStarted(B, 1))
    assert story.end(A) == [completed(A), RunStep(C, 1)]
    assert (story.steps, story.edges) == ("completed running queued", "satisfied satisfied satisfied dead")
    assert story.fold(AttemptEnded(B, 1, OK)) == [completed(B)]
    assert story.end(C) == [completed(C), EmitEnd("completed")]


def test_the_input_of_a_first_join_is_frozen_without_the_ancestors_that_had_not_ended() -> None:
    story = Story(a={}, b={}, c={"join": "first", "after": [after("a"), after("b")], "retries": {"attempts": 1}})
    story.begin()
    story.end(A)
    assert story.run.steps[C].unseen == (B,)
    story.end(B)
    story.end(C, Outcome(error=BOOM, retry_after_ms=0))
    story.fold(RetryDue(C, 1))
    assert (story.run.steps[C].attempt, story.run.steps[C].unseen) == (2, (B,))


def test_an_ancestor_further_up_can_be_missing_in_the_input_too() -> None:
    story = Story(
        a={}, b={}, c={"join": "first", "after": [after("a"), after("b")]}, d={"after": [after("c")]}, e={"after": []}
    )
    story.begin()
    story.end(A)
    story.end(C)
    assert story.run.steps[D].unseen == (B,)
    assert story.run.steps[E].unseen == ()


# --- skipped steps ---------------------------------------------------------------------------------------------------


def test_a_run_whose_steps_are_all_skipped_is_completed() -> None:
    story = Story(a=SKIPPED, b={"after": [after("a")]}, c={"after": [after("b", on="always")]})
    assert story.begin() == [EmitEnd("completed")]
    assert (story.status, story.steps) == ("completed", "skipped skipped skipped")
    assert (story.run.started_at, story.run.ended_at) == (None, NOW)


def test_a_chain_of_a_thousand_steps_is_skipped_in_one_transition() -> None:
    chain = {f"s{i}": {"after": [after(f"s{i - 1}")]} for i in range(1, 1000)}
    story = Story(s0=SKIPPED, **chain)
    assert story.begin() == [EmitEnd("completed")]
    assert set(story.steps.split()) == {"skipped"}


def test_a_skipped_step_drops_the_waits_of_its_other_edges() -> None:
    story = Story(a={}, b={"join": "all", "after": [after("$trigger", async_=WAIT), after("a", if_="false")]})
    assert story.begin() == [*opened(), RunStep(A, 1)]
    assert story.end(A) == [completed(A), *closed(), EmitEnd("completed")]
    assert (story.steps, story.pauses) == ("completed skipped", "dropped")


# --- on and failures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on", "outcome", "then"),
    [
        ("success", OK, "queued"),
        ("success", FINAL, "skipped"),
        ("failure", OK, "skipped"),
        ("failure", FINAL, "queued"),
        ("always", OK, "queued"),
        ("always", FINAL, "queued"),
    ],
)
def test_on_says_how_the_parent_must_have_ended(on: str, outcome: Outcome, then: str) -> None:
    story = Story(a={}, b={"after": [after("a", on=on)]}, handler={"after": [after("a", on="failure")]})
    story.begin()
    story.end(A, outcome)
    assert story.run.steps[B].status is StepStatus[then.upper()]


def test_a_run_with_a_handled_failure_completes() -> None:
    story = Story(a={}, b={"after": [after("a")]}, c={"after": [after("a", on="failure", if_="true")]})
    story.begin()
    assert story.end(A, FINAL) == [failed(A), RunStep(C, 1)]
    assert story.steps == "failed skipped queued"
    assert story.end(C) == [completed(C), EmitEnd("completed")]
    assert (story.status, story.run.failed_step) == ("completed", None)


def test_a_failure_edge_that_pauses_handles_the_failure() -> None:
    story = Story(a={}, b={"after": [after("a", on="failure", async_=WAIT)]})
    story.begin()
    assert story.end(A, FINAL) == [failed(A), *opened()]
    assert story.status == "running"


def test_a_failure_edge_to_a_step_that_already_started_handles_the_failure() -> None:
    story = Story(a={}, b={}, c={"join": "first", "after": [after("a"), after("b", on="always")]})
    story.begin()
    story.end(A)
    assert story.end(B, FINAL) == [failed(B)]
    assert story.end(C) == [completed(C), EmitEnd("completed")]


@pytest.mark.parametrize("edges", [[after("a")], [after("a", on="failure", if_="false")]])
def test_a_failure_that_no_edge_handles_fails_the_run_at_once(edges: list[dict[str, Any]]) -> None:
    story = Story(a={}, b={"after": edges})
    story.begin()
    story.fold(AttemptStarted(A, 1))
    assert story.fold(AttemptEnded(A, 1, FINAL), NOW + 1) == [failed(A, ended_at=NOW + 1), EmitEnd("failed")]
    assert (story.status, story.steps, story.edges) == ("failed", "failed cancelled", "satisfied dead")
    assert (story.run.failed_step, story.run.ended_at) == (A, NOW + 1)


def busy_story() -> Story:
    """a is running; b queued, c retrying, d running, e waits for an event, f is pending."""
    story = Story(
        a={},
        b={},
        c={"retries": {"attempts": 1, "backoff": {"initial": "1m", "jitter": 0.0}}},
        d={"retries": {"attempts": 1}},
        e={"after": [after("$trigger", async_=WAIT)]},
        f={"after": [after("a"), after("$trigger", wait="1h")]},
        g={"after": [after("d")]},
    )
    assert story.begin() == [*opened(0), SetTimer(delay(1), NOW + HOUR), *(RunStep(step, 1) for step in (A, B, C, D))]
    assert story.end(C, RETRYABLE) == [failed(C), SetTimer(retry(C), NOW + MINUTE)]
    story.fold(AttemptStarted(A, 1))
    story.fold(AttemptStarted(D, 1))
    assert story.steps == "running queued retrying running pending pending pending"
    return story


def test_when_the_run_fails_all_steps_that_are_not_running_are_cancelled() -> None:
    story = busy_story()
    assert story.fold(AttemptEnded(A, 1, FINAL)) == [
        failed(A),
        EmitEnd("failed"),
        record(B, "cancelled", started_at=None),
        ClearTimer(retry(C)),
        *closed(0),
        ClearTimer(delay(1)),
    ]
    assert story.steps == "failed cancelled cancelled running cancelled cancelled cancelled"
    assert (story.status, story.pauses) == ("failed", "dropped dropped")
    assert list(outstanding(story.plan, story.run)) == []


@pytest.mark.parametrize(
    ("fact", "recorded", "then"),
    [
        (AttemptEnded(D, 1, OK), completed(D), "completed"),
        (AttemptEnded(D, 1, RETRYABLE), failed(D), "failed"),  # not retried
        (AttemptLost(D, 1), lost(D), "failed"),
    ],
)
def test_an_attempt_that_runs_when_the_run_fails_may_end_and_is_recorded(
    fact: Fact, recorded: RecordAttempt, then: str
) -> None:
    story = busy_story()
    story.fold(AttemptEnded(A, 1, FINAL), NOW)
    assert questions(story.plan, story.run, fact) == NO_QUESTIONS
    assert story.fold(fact) == [recorded]
    assert story.steps == f"failed cancelled cancelled {then} cancelled cancelled cancelled"
    assert (story.status, story.run.failed_step) == ("failed", A)


# --- conditions ------------------------------------------------------------------------------------------------------


def test_conditions_are_evaluated_when_the_parent_ends_for_good() -> None:
    story = Story(
        a={"retries": {"attempts": 1}},
        b={"after": [after("a", if_="true"), after("a", if_="false", on="failure")]},
        c={"after": [after("a", async_=WAIT), after("a", wait="1m", async_=WAIT)]},
    )
    story.begin()
    story.fold(AttemptStarted(A, 1))
    assert questions(story.plan, story.run, AttemptEnded(A, 1, RETRYABLE)) == NO_QUESTIONS
    assert questions(story.plan, story.run, AttemptEnded(A, 2, OK)) == NO_QUESTIONS
    assert questions(story.plan, story.run, AttemptEnded(A, 1, OK)) == Questions(A, (1,), (0,), OK)
    assert questions(story.plan, story.run, AttemptEnded(A, 1, FINAL)) == Questions(A, (2,), (), FINAL)


def test_conditions_on_trigger_edges_are_evaluated_at_the_start() -> None:
    story = Story(a={"after": [after("$trigger", if_="true", async_=WAIT)]})
    assert questions(story.plan, story.run, RunStarted()) == Questions(TRIGGER, (0,), (0,))


def test_a_trigger_condition_without_a_value_fails_the_run_before_any_step_starts() -> None:
    story = Story(GONE[:1], a={"after": [after("$trigger", if_=BROKEN)]}, b={})
    assert story.begin() == [EmitEnd("failed")]
    assert (story.status, story.steps, story.edges) == ("failed", "cancelled cancelled", "dead dead")
    assert (story.run.failed_edge, story.run.failed_step, story.pauses) == (0, None, "idle")
    assert story.run.problems == (("edge", 0, "no such key: x"),)


def test_a_condition_without_a_value_fails_the_run_and_the_result_of_the_step_stays() -> None:
    """`d` is running, and may end. `e` would have been started by the same outcome."""
    story = Story(
        a={},
        b={"after": [after("a", if_="true")]},
        c={"after": [after("a", if_=BROKEN), after("a", if_="false")]},
        d={},
        e={"after": [after("a")]},
    )
    story.begin()
    story.fold(AttemptStarted(D, 1))
    assert story.end(A) == [record(A, "completed", output=b"1"), EmitEnd("failed")]
    assert (story.status, story.run.failed_edge) == ("failed", 2)
    assert story.steps == "completed cancelled cancelled running cancelled"
    assert story.edges == "satisfied dead dead dead satisfied dead"
    assert story.run.problems == (("edge", 2, "no such key: x"),)
    assert story.fold(AttemptEnded(D, 1, OK)) == [record(D, "completed", output=b"1")]
    assert story.ignores(RunStarted())


@pytest.mark.parametrize("other", [after("a"), after("a", on="failure"), after("a", on="always", if_="true")])
def test_a_failure_edge_whose_condition_has_no_value_fails_the_run_even_if_another_edge_handles_the_failure(
    other: dict[str, Any],
) -> None:
    story = Story(a={}, b={"after": [after("a", on="failure", if_=BROKEN)]}, c={"after": [other]})
    story.begin()
    assert story.end(A, FINAL) == [failed(A), EmitEnd("failed")]
    assert (story.status, story.run.failed_edge, story.run.failed_step) == ("failed", 1, None)
    assert story.steps == "failed cancelled cancelled"
    assert story.run.problems == (("edge", 1, "no such key: x"),)


def test_a_condition_that_is_not_evaluated_may_have_no_value() -> None:
    """`on` comes before `if`, and the edges of a skipped step are dead."""
    story = Story(
        a={},
        b={"after": [after("a", on="failure", if_=BROKEN)]},
        c={"after": [after("b", if_=BROKEN)]},
        d={"after": [after("a")]},
    )
    story.begin()
    story.end(A)
    story.end(D)
    assert (story.status, story.steps) == ("completed", "completed skipped skipped completed")
    assert story.run.problems == ()


def test_a_condition_is_evaluated_when_the_parent_ends_even_if_the_step_has_started() -> None:
    story = Story(a={}, b={}, c={"after": [after("a"), after("b", if_=BROKEN)], "join": "first"})
    story.begin()
    story.end(A)
    story.end(B)
    assert (story.status, story.steps, story.run.failed_edge) == ("failed", "completed completed cancelled", 3)


def test_the_first_of_several_conditions_without_a_value_is_the_error_of_the_run_and_all_are_stored() -> None:
    story = Story(a={}, b={"after": [after("a", if_=BROKEN)]}, c={"after": [after("a", if_=BROKEN)]})
    story.begin()
    story.end(A)
    assert story.run.failed_edge == 1
    assert [index for _, index, _ in story.run.problems] == [1, 2]


def test_a_run_packed_by_an_earlier_version_has_no_failed_edge() -> None:
    story = Story(a={})
    story.begin()
    packed = orjson.loads(pack(story.run))
    assert unpack("run", orjson.dumps(packed[:-1])) == story.run


# --- retries ---------------------------------------------------------------------------------------------------------


def test_a_failed_attempt_is_retried_after_the_backoff_until_the_retries_are_used_up() -> None:
    story = Story(a={"retries": {"attempts": 2, "backoff": {"initial": "10s", "factor": 3.0, "jitter": 0.0}}})
    story.begin()
    assert story.end(A, RETRYABLE, 1) == [failed(A, 1), SetTimer(retry(A, 1), NOW + 10 * SECOND)]
    assert story.run.steps[A] == StepState(StepStatus.RETRYING, 1, failures=1, at=NOW + 10 * SECOND, queued_at=NOW)
    assert story.fold(RetryDue(A, 1)) == [RunStep(A, 2)]
    assert story.end(A, RETRYABLE, 2) == [failed(A, 2), SetTimer(retry(A, 2), NOW + 30 * SECOND)]
    assert story.fold(RetryDue(A, 2)) == [RunStep(A, 3)]
    assert story.end(A, RETRYABLE, 3) == [failed(A, 3), EmitEnd("failed")]


def test_a_retried_attempt_can_complete() -> None:
    story = Story(a={"retries": {"attempts": 1}})
    story.begin()
    story.end(A, RETRYABLE)
    story.fold(RetryDue(A, 1), NOW + MINUTE)
    assert story.run.steps[A].queued_at == NOW + MINUTE
    story.fold(AttemptStarted(A, 2), NOW + MINUTE)
    assert story.fold(AttemptEnded(A, 2, OK), NOW + MINUTE) == [
        completed(A, 2, queued_at=NOW + MINUTE, started_at=NOW + MINUTE, ended_at=NOW + MINUTE),
        EmitEnd("completed"),
    ]


def test_retry_after_sets_the_delay() -> None:
    story = Story(a={"retries": {"attempts": 1}})
    story.begin()
    outcome = Outcome(error=BOOM, retry_after_ms=77)
    assert story.end(A, outcome) == [failed(A), SetTimer(retry(A), NOW + 77)]


def test_folding_the_same_fact_again_gives_the_same_jitter() -> None:
    story = Story(a={"retries": {"attempts": 1, "backoff": {"initial": "100s", "jitter": 0.5}}})
    story.begin()
    story.fold(AttemptStarted(A, 1))
    decision = story.decide(AttemptEnded(A, 1, RETRYABLE))
    assert decision == story.decide(AttemptEnded(A, 1, RETRYABLE))
    assert NOW + 50 * SECOND <= decision.run.steps[A].at <= NOW + 150 * SECOND


def test_a_final_error_is_not_retried() -> None:
    story = Story(a={"retries": {"attempts": 4}})
    story.begin()
    assert story.end(A, FINAL) == [failed(A), EmitEnd("failed")]


def test_an_early_or_repeated_retry_changes_nothing() -> None:
    story = Story(a={"retries": {"attempts": 2}})
    story.begin()
    assert story.ignores(RetryDue(A, 1))
    story.end(A, RETRYABLE)
    story.fold(RetryDue(A, 1))
    assert story.ignores(RetryDue(A, 1))
    story.end(A, RETRYABLE, 2)
    assert story.ignores(RetryDue(A, 1))


# --- lost attempts ---------------------------------------------------------------------------------------------------


def test_a_lost_attempt_is_followed_at_once_by_the_next_and_the_fourth_loss_is_final() -> None:
    story = Story(a={"retries": {"attempts": 20}}, b={"after": [after("a", on="failure")]})
    story.begin()
    for attempt in (1, 2, 3):
        story.fold(AttemptStarted(A, attempt))
        assert story.fold(AttemptLost(A, attempt)) == [lost(A, attempt), RunStep(A, attempt + 1)]
    story.fold(AttemptStarted(A, 4))
    assert story.fold(AttemptLost(A, 4)) == [lost(A, 4), RunStep(B, 1)]
    assert story.steps == "failed queued"


def test_a_lost_attempt_does_not_count_against_the_retries() -> None:
    story = Story(a={"retries": {"attempts": 1}})
    story.begin()
    story.fold(AttemptStarted(A, 1))
    story.fold(AttemptLost(A, 1))
    story.end(A, RETRYABLE, 2)
    assert story.run.steps[A][:4] == (StepStatus.RETRYING, 2, 1, 1)
    story.fold(RetryDue(A, 2))
    story.fold(AttemptStarted(A, 3))
    assert story.fold(AttemptLost(A, 3)) == [lost(A, 3), RunStep(A, 4)]
    assert story.end(A, RETRYABLE, 4) == [failed(A, 4), EmitEnd("failed")]


def test_the_loss_of_an_attempt_that_is_not_running_changes_nothing() -> None:
    story = Story(a={})
    story.begin()
    assert story.ignores(AttemptLost(A, 1))
    story.fold(AttemptStarted(A, 1))
    story.fold(AttemptLost(A, 1))
    assert story.ignores(AttemptLost(A, 1))


# --- delays and waits ------------------------------------------------------------------------------------------------


def test_an_edge_is_settled_when_its_delay_ends() -> None:
    story = Story(a={}, b={"after": [after("a", wait="1h")]})
    story.begin()
    assert story.end(A) == [completed(A), SetTimer(delay(), NOW + HOUR)]
    assert (story.steps, story.edges, story.pauses) == ("completed pending", "satisfied paused", "delayed")
    assert story.fold(DelayEnded(0)) == [RunStep(B, 1)]
    assert (story.edges, story.pauses) == ("satisfied satisfied", "elapsed")
    assert story.ignores(DelayEnded(0))


def test_a_wait_ends_when_its_event_arrives() -> None:
    story = Story(a={}, b={"after": [after("a", async_=WAIT)]})
    story.begin()
    assert story.end(A) == [completed(A), *opened()]
    assert story.run.pauses == (PauseState(PauseStatus.AWAITING, NOW + HOUR, key=KEY, edges=(1,)),)
    assert story.fold(EventArrived(0, "e1")) == [*closed(), RunStep(B, 1)]
    assert story.run.pauses == (PauseState(PauseStatus.MATCHED, NOW + HOUR, "e1", 1, KEY, (1,)),)


def test_a_wait_settles_once() -> None:
    story = Story(a={"after": [after("$trigger", async_=WAIT)]})
    story.begin()
    story.fold(EventArrived(0, "e1"))
    assert story.ignores(EventArrived(0, "e1"))
    assert story.ignores(EventArrived(0, "e2"))
    assert story.ignores(DeadlinePassed(0))


def test_matched_waits_are_numbered_in_the_order_of_their_events() -> None:
    edges = [after("$trigger", async_={"event": name, "ttl": "1h"}) for name in ("x", "y")]
    story = Story(a={"after": edges})
    story.begin()
    assert story.fold(EventArrived(1, "e1")) == closed(1)
    assert story.fold(EventArrived(0, "e2")) == [*closed(0), RunStep(A, 1)]
    assert [pause.order for pause in story.run.pauses] == [2, 1]


def test_an_edge_whose_event_did_not_come_in_time_is_dead() -> None:
    story = Story(a={}, b={"after": [after("a", async_=WAIT)]})
    story.begin()
    story.end(A)
    assert story.fold(DeadlinePassed(0)) == [*closed(), EmitEnd("completed")]
    assert (story.steps, story.edges, story.pauses) == ("completed skipped", "satisfied dead", "expired")


@pytest.mark.parametrize(
    ("fact", "steps"),
    [(EventArrived(0, "e1"), "completed queued skipped"), (DeadlinePassed(0), "completed skipped queued")],
)
def test_exactly_one_side_of_a_pair_of_wait_and_timeout_runs(fact: Fact, steps: str) -> None:
    story = Story(a={}, b={"after": [after("a", async_=WAIT)]}, c={"after": [after("a", async_=TIMEOUT)]})
    story.begin()
    assert story.end(A) == [completed(A), *opened()]
    assert story.fold(fact) == [*closed(), RunStep(steps.split().index("queued"), 1)]
    assert story.steps == steps


SAME = {"event": "paid", "match": "async.data.id == event.data.id", "ttl": "60m"}


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        (after("a", async_=SAME), after("a", async_=SAME), True),
        (after("a", async_=SAME), after("a", async_={**SAME, "onTimeout": True}), True),
        (
            after("a", async_=SAME),
            after("a", async_={**SAME, "ttl": "1h"}),
            True,
        ),  # the same ttl, written in another way
        (after("a", async_=SAME, if_="true"), after("a", async_=SAME, on="always"), True),
        (after("a", wait="1h"), after("a", wait="60m"), True),
        (after("a", async_=SAME), after("b", async_=SAME), False),
        (after("a", async_=SAME), after("a", wait="1h", async_=SAME), False),
        (after("a", async_=SAME), after("a", async_={**SAME, "event": "sent"}), False),
        (after("a", async_=SAME), after("a", async_={**SAME, "match": "true"}), False),
        (after("a", async_=SAME), after("a", async_={**SAME, "ttl": "2h"}), False),
        (after("a", wait="1h"), after("a", wait="2h"), False),
        (after("a", wait="1h"), after("b", wait="1h"), False),
        (after("a", wait="1h"), after("$trigger", wait="1h"), False),
    ],
)
@pytest.mark.parametrize("one_child", [True, False])
def test_waits_are_shared_by_edges_with_equal_parent_delay_event_match_and_ttl(
    one: dict[str, Any], other: dict[str, Any], shared: bool, one_child: bool
) -> None:
    children = {"c": {"after": [one, other]}} if one_child else {"c": {"after": [one]}, "d": {"after": [other]}}
    plan = plan_of(a={}, b={}, **children)
    assert [pause.edges for pause in plan.pauses] == ([(2, 3)] if shared else [(2,), (3,)])


def test_a_shared_wait_wakes_all_its_edges_in_one_transition() -> None:
    waiting = {"after": [after("a", async_=WAIT)]}
    story = Story(a={}, b=waiting, c=waiting, d={"after": [after("a", async_=WAIT, if_="false")]})
    story.begin()
    assert story.end(A) == [completed(A), *opened()]
    assert story.fold(EventArrived(0, "e1")) == [*closed(), RunStep(B, 1), RunStep(C, 1)]
    assert story.steps == "completed queued queued skipped"


@pytest.mark.parametrize("late", [0, 5 * SECOND, 30 * HOUR])
def test_the_ttl_counts_from_the_end_of_the_delay_however_late_the_timer_fired(late: int) -> None:
    story = Story(a={}, b={"after": [after("a", wait="2h", async_=WAIT)]})
    story.begin()
    assert story.end(A) == [completed(A), SetTimer(delay(), NOW + 2 * HOUR)]
    assert questions(story.plan, story.run, DelayEnded(0)) == Questions(A, pauses=(0,))
    assert story.fold(DelayEnded(0), NOW + 2 * HOUR + late) == opened(until=NOW + 3 * HOUR)
    assert story.ignores(DelayEnded(0))
    assert story.fold(EventArrived(0, "e1")) == [*closed(), RunStep(B, 1)]


def test_an_event_or_a_deadline_during_the_delay_does_not_settle_the_wait() -> None:
    story = Story(a={"after": [after("$trigger", wait="2h", async_=WAIT)]})
    story.begin()
    assert story.ignores(EventArrived(0, "e1"))
    assert story.ignores(DeadlinePassed(0))


def test_a_wait_that_no_event_can_satisfy_is_not_stored_and_expires() -> None:
    plan = plan_of(a={"after": [after("$trigger", async_=TIMEOUT)]})
    answers = Answers(pauses={0: WaitKey(None, "there is no event.data.id")})
    run = advance(plan, new_run("run", plan, NOW), RunStarted(), answers, NOW)
    assert run.commands == (SetTimer(deadline(), NOW + HOUR),)
    assert run.run.problems == (("pause", 0, "there is no event.data.id"),)
    assert list(outstanding(plan, run.run)) == [SetTimer(deadline(), NOW + HOUR)]
    assert RunStep(A, 1) in advance(plan, run.run, DeadlinePassed(0), NO_ANSWERS, NOW).commands


def test_a_first_join_drops_the_timers_and_waits_of_its_other_edges() -> None:
    story = Story(
        a={},
        b={
            "join": "first",
            "after": [after("$trigger", async_=WAIT), after("$trigger", wait="1h"), after("a", wait="2h"), after("a")],
        },
    )
    assert story.begin() == [*opened(0), SetTimer(delay(1), NOW + HOUR), RunStep(A, 1)]
    assert story.end(A) == [
        completed(A),
        SetTimer(delay(2), NOW + 2 * HOUR),
        RunStep(B, 1),
        *closed(0),
        ClearTimer(delay(1)),
        ClearTimer(delay(2)),
    ]
    assert story.pauses == "dropped dropped dropped"
    assert story.ignores(EventArrived(0, "e1"))
    assert story.ignores(DelayEnded(1))


def test_a_shared_wait_stays_while_another_edge_needs_it() -> None:
    story = Story(
        a={},
        b={"join": "first", "after": [after("$trigger", async_=WAIT), after("a")]},
        c={"join": "first", "after": [after("$trigger", async_=WAIT), after("b")]},
    )
    assert story.begin() == [*opened(), RunStep(A, 1)]
    assert story.end(A) == [completed(A), RunStep(B, 1)]
    assert (story.edges, story.pauses) == ("satisfied dead satisfied paused pending", "awaiting")
    assert story.end(B) == [completed(B), RunStep(C, 1), *closed()]
    assert story.pauses == "dropped"


def test_a_dead_edge_is_not_satisfied_by_the_wait_that_it_shared() -> None:
    story = Story(
        a={},
        b={"join": "first", "after": [after("$trigger", async_=WAIT), after("a")]},
        c={"after": [after("$trigger", async_=WAIT)]},
    )
    story.begin()
    story.end(A)
    assert story.fold(EventArrived(0, "e1")) == [*closed(), RunStep(C, 1)]
    assert story.edges == "satisfied dead satisfied satisfied"


def test_an_event_that_satisfied_a_wait_upstream_cannot_satisfy_this_one() -> None:
    story = Story(
        a={},
        b={"after": [after("a", async_=WAIT)]},
        c={"after": [after("b", async_=WAIT)]},
        d={"after": [after("a", async_={**WAIT, "ttl": "2h"})]},  # not upstream
    )
    story.begin()
    story.end(A)
    story.fold(EventArrived(0, "e1"))
    story.end(B)
    assert [used_events(story.plan, story.run, pause) for pause in (0, 1, 2)] == [set(), {"e1"}, set()]
    assert story.ignores(EventArrived(1, "e1"))
    assert story.fold(EventArrived(2, "e1")) == [*closed(2), RunStep(D, 1)]
    assert story.fold(EventArrived(1, "e2")) == [*closed(1), RunStep(C, 1)]


def test_a_wait_far_upstream_counts_and_an_expired_one_does_not() -> None:
    story = Story(
        a={"join": "first", "after": [after("$trigger", async_=WAIT), after("$trigger")]},
        b={"after": [after("a", async_=TIMEOUT)]},
        c={"after": [after("b")]},
        d={"after": [after("c", async_=WAIT)]},
    )
    assert story.plan.pauses[2].upstream == (0, 2)  # edges
    story.begin()
    story.end(A)
    story.fold(DeadlinePassed(1))
    story.end(B)
    story.end(C)
    assert used_events(story.plan, story.run, 2) == set()


# --- cancel ----------------------------------------------------------------------------------------------------------


def test_cancel_ends_all_open_steps_and_stops_running_attempts() -> None:
    story = busy_story()
    story.fold(AttemptEnded(D, 1, OK))
    assert story.fold(CancelRequested(), NOW + 2) == [
        EmitEnd("cancelled"),
        StopStep(A, 1),
        record(A, "cancelled", ended_at=NOW + 2),
        record(B, "cancelled", started_at=None, ended_at=NOW + 2),
        ClearTimer(retry(C)),
        *closed(0),
        ClearTimer(delay(1)),
        record(6, "cancelled", started_at=None, ended_at=NOW + 2),
    ]
    assert story.steps == "cancelled cancelled cancelled completed cancelled cancelled cancelled"
    assert (story.status, story.run.ended_at, story.pauses) == ("cancelled", NOW + 2, "dropped dropped")


def test_after_a_cancel_nothing_changes_and_failure_edges_are_not_taken() -> None:
    story = busy_story()
    story.fold(CancelRequested())
    for fact in (
        RunStarted(),
        AttemptEnded(A, 1, FINAL),
        AttemptEnded(A, 1, OK),
        AttemptLost(D, 1),
        RetryDue(C, 1),
        EventArrived(0, "e1"),
        DeadlinePassed(0),
        DelayEnded(1),
        CancelRequested(),
    ):
        assert story.decide(fact) == Decision(story.run, ())
    assert story.decide(AttemptStarted(B, 1)) == Decision(story.run, ())


def test_a_run_can_be_cancelled_before_it_started() -> None:
    story = Story(a={}, b={"after": [after("a")]})
    assert story.fold(CancelRequested()) == [EmitEnd("cancelled")]
    assert story.steps == "cancelled cancelled"
    assert story.decide(RunStarted()) == Decision(story.run, ())


def test_a_run_that_ended_is_not_cancelled() -> None:
    story = Story(a={}, b={})
    story.begin()
    story.fold(AttemptStarted(B, 1))
    story.end(A, FINAL)
    assert story.decide(CancelRequested()) == Decision(story.run, ())
    assert (story.status, story.steps) == ("failed", "failed running")


# --- stale facts and outstanding commands ----------------------------------------------------------------------------


def test_a_stale_fact_returns_all_outstanding_commands_again() -> None:
    story = busy_story()
    decision = story.decide(RunStarted())
    assert decision.run is story.run
    assert decision.commands == (
        RunStep(B, 1),
        SetTimer(retry(C), NOW + MINUTE),
        OpenWait(0, KEY, NOW + HOUR),
        SetTimer(deadline(0), NOW + HOUR),
        SetTimer(delay(1), NOW + HOUR),
    )


def test_a_repeated_start_of_a_run_whose_first_edges_are_paused_changes_nothing() -> None:
    story = Story(a={"after": [after("$trigger", wait="1h")]})
    assert story.begin() == [SetTimer(delay(), NOW + HOUR)]
    assert story.decide(RunStarted(), NOW + 1) == Decision(story.run, (SetTimer(delay(), NOW + HOUR),))


def test_only_the_start_or_a_cancel_changes_a_run_that_has_not_started() -> None:
    story = Story(a={"after": [after("$trigger", wait="1h", async_=WAIT)]})
    for fact in (
        AttemptEnded(A, 0, OK),
        AttemptLost(A, 0),
        RetryDue(A, 0),
        DelayEnded(0),
        EventArrived(0, "e1"),
        DeadlinePassed(0),
    ):
        assert story.decide(fact) == Decision(story.run, ())


@pytest.mark.parametrize("timer", [retry(A, 3), delay(2), deadline(2)])
def test_a_timer_that_is_due_is_a_fact(timer: Timer) -> None:
    facts = {TimerKind.RETRY: RetryDue(A, 3), TimerKind.DELAY: DelayEnded(2), TimerKind.DEADLINE: DeadlinePassed(2)}
    assert timer.fact() == facts[timer.kind]


# --- approvals -------------------------------------------------------------------------------------------------------

ASKS: dict[str, Any] = {"path": "", "runtime": {"type": "approval", "message": "Really?"}, "timeout": "1h"}
DECISION = Timer(TimerKind.DECISION, A, 1)


def asking(**more: dict[str, Any]) -> Story:
    story = Story(a=ASKS, **more)
    story.begin()
    assert story.fold(AttemptStarted(A, 1)) == [SetTimer(DECISION, NOW + HOUR)]
    return story


def test_an_approval_has_a_timer_from_the_claim_until_the_decision() -> None:
    story = asking(b={"after": [after("a")]})
    assert list(outstanding(story.plan, story.run)) == [SetTimer(DECISION, NOW + HOUR)]
    assert story.ignores(AttemptEnded(A, 2, OK))
    assert story.fold(AttemptEnded(A, 1, OK)) == [completed(A), ClearTimer(DECISION), RunStep(B, 1)]
    assert story.ignores(DECISION.fact())
    assert story.steps == "completed queued"


def test_the_timeout_of_an_approval_is_a_failure_that_is_not_retried() -> None:
    story = asking(b={"after": [after("a", on="failure")]})
    commands = story.fold(DECISION.fact(), NOW + HOUR)
    assert story.steps == "failed queued"
    (recorded,) = (command for command in commands if isinstance(command, RecordAttempt))
    assert recorded.error == Error("approval_timeout", "there was no decision before the timeout")
    assert story.ignores(AttemptEnded(A, 1, OK))


def test_an_approval_is_never_lost() -> None:
    assert asking().ignores(AttemptLost(A, 1))


@pytest.mark.parametrize("ending", ["cancelled", "failed"])
def test_the_end_of_a_run_closes_open_approvals_without_stop_commands(ending: str) -> None:
    story = asking(b={})
    story.fold(AttemptStarted(B, 1))
    commands = story.fold(CancelRequested() if ending == "cancelled" else AttemptEnded(B, 1, FINAL))
    assert [command for command in commands if isinstance(command, ClearTimer)] == [ClearTimer(DECISION)]
    assert StopStep(A, 1) not in commands
    assert record(A, "cancelled") in commands
    assert story.run.steps[A].status is StepStatus.CANCELLED
    assert story.ignores(DECISION.fact())


# --- packing ---------------------------------------------------------------------------------------------------------


def test_a_run_is_unpacked_as_it_was_packed() -> None:
    story = busy_story()
    story.fold(EventArrived(0, "é/1"))
    full = story.run._replace(failed_step=A, ended_at=NOW, problems=(("edge", 1, "no such key: «x»"),))
    full = full._replace(steps=(full.steps[0]._replace(unseen=(1, 4)), *full.steps[1:]))
    for run in (new_run("run", story.plan, 0), story.run, full):
        assert unpack("run", pack(run)) == run
    assert type(unpack("run", pack(full)).steps[0].status) is StepStatus


# --- rules of `cancel` -----------------------------------------------------------------------------------------------

GONE = [{"event": "gone"}, {"event": "late", "timeout": "1h"}]
DEADLINE = Timer(TimerKind.DEADLINE, 1)


def test_a_cancel_rule_waits_from_the_start_of_the_run_and_only_a_timeout_sets_a_timer() -> None:
    story = Story(GONE, a={})
    forever = NOW + 10 * 366 * 24 * HOUR
    assert story.begin() == [
        OpenWait(0, KEY, forever),
        SetTimer(DEADLINE, NOW + HOUR),
        OpenWait(1, KEY, NOW + HOUR),
        RunStep(A, 1),
    ]
    assert story.pauses == "awaiting awaiting"
    assert list(outstanding(story.plan, story.run)) == [
        RunStep(A, 1),
        OpenWait(0, KEY, forever),
        OpenWait(1, KEY, NOW + HOUR),
        SetTimer(DEADLINE, NOW + HOUR),
    ]


def test_the_timeout_of_a_cancel_rule_counts_from_the_creation_of_the_run() -> None:
    story = Story(GONE, a={})
    assert OpenWait(1, KEY, NOW + HOUR) in story.fold(RunStarted(), NOW + MINUTE)


def test_the_event_of_a_cancel_rule_cancels_the_run_and_closes_the_other_rules() -> None:
    story = Story(GONE, a={}, b={"after": [after("a")]})
    story.begin()
    story.fold(AttemptStarted(A, 1))
    assert story.fold(EventArrived(0, "e")) == [
        CloseWait(0),
        ClearTimer(DEADLINE),
        CloseWait(1),
        EmitEnd("cancelled"),
        StopStep(A, 1),
        record(A, "cancelled"),
    ]
    assert (story.status, story.steps, story.pauses) == ("cancelled", "cancelled cancelled", "matched dropped")
    assert story.run.pauses[0].event_id == "e"
    assert story.ignores(EventArrived(1, "e"))


@pytest.mark.parametrize(("outcome", "status"), [(OK, "completed"), (FINAL, "failed")])
def test_the_end_of_a_run_closes_its_cancel_rules(outcome: Outcome, status: str) -> None:
    story = Story(GONE, a={})
    story.begin()
    commands = story.end(A, outcome)
    assert commands[1:] == [CloseWait(0), ClearTimer(DEADLINE), CloseWait(1), EmitEnd(status)]
    assert (story.status, story.pauses) == (status, "dropped dropped")
    assert story.ignores(EventArrived(0, "e"))


def test_a_cancel_rule_does_nothing_after_its_timeout() -> None:
    story = Story(GONE, a={})
    story.begin()
    assert story.fold(DeadlinePassed(1)) == [ClearTimer(DEADLINE), CloseWait(1)]
    assert story.ignores(EventArrived(1, "e"))
    assert story.pauses == "awaiting expired"


def test_a_cancel_rule_whose_condition_has_no_value_opens_no_wait() -> None:
    story = Story(GONE[:1], a={})
    asked = questions(story.plan, story.run, RunStarted())
    assert asked == Questions(TRIGGER, pauses=(0,))
    answers = Answers({}, {0: WaitKey(None, "there is no event.data.x")})
    decision = advance(story.plan, story.run, RunStarted(), answers, NOW)
    assert decision.commands == (RunStep(A, 1),)
    assert list(outstanding(story.plan, decision.run)) == [RunStep(A, 1)]
    assert decision.run.problems == (("pause", 0, "there is no event.data.x"),)


# --- runs that continue from a step -----------------------------------------------------------------------------------


def test_a_run_continues_an_earlier_run_from_a_step() -> None:
    """`a` is kept, `s` was skipped, `b` starts at once, `c` is evaluated again, and the other parent of `b` runs."""
    story = Story(
        a={},
        s={"after": [after("a", on="failure")]},
        b={"after": [after("a", async_={"event": "e", "ttl": "1h"}), after("p")]},
        c={"after": [after("a", if_="true"), after("s")], "join": "first"},
        p={},
    )
    a, s, b, c, p = range(5)
    kept = (CarriedOver(a, OK), CarriedOver(s, None))
    resumed = RunResumed(b, kept, satisfied=(0, 2), matched=((0, "event"),))
    assert story.fold(resumed) == [
        RecordAttempt(a, 0, "kept", NOW, None, NOW, b"1"),
        RunStep(b, 1),
        RunStep(p, 1),
    ]
    assert story.steps == "completed skipped queued pending queued"
    assert story.run.steps[b].unseen == (p,)
    assert story.edges == "satisfied dead satisfied dead pending dead satisfied"
    assert story.run.pauses[0] == PauseState(PauseStatus.MATCHED, event_id="event", order=1, edges=(2,))
    assert questions(story.plan, story.run, StepKept(a)) == Questions(a, edges=(4,))
    assert story.fold(StepKept(a)) == [RunStep(c, 1)]
    assert all(story.ignores(fact) for fact in (StepKept(a), StepKept(s), StepKept(b), resumed, RunStarted()))


def test_a_kept_failure_does_not_fail_the_run() -> None:
    story = Story(a={}, b={"after": [after("a", on="failure", if_="false")]}, c={})
    commands = story.fold(RunResumed(C, (CarriedOver(A, FINAL),), (1,), ()))
    assert commands == [RecordAttempt(A, 0, "kept", NOW, None, NOW, error=BOOM), RunStep(C, 1)]
    assert story.fold(StepKept(A)) == []
    assert (story.status, story.steps) == ("running", "failed skipped queued")


def test_a_continued_run_evaluates_conditions_again_and_fails_if_one_has_no_value() -> None:
    """Conditions after kept steps and after the trigger; not those on edges that are carried over."""
    steps = {
        "a": {"after": [after("$trigger", if_=BROKEN)]},
        "b": {"after": [after("a", if_=BROKEN)]},
        "c": {"after": [after("$trigger", if_=BROKEN)]},
    }
    story = Story(GONE[:1], **steps)
    kept = (CarriedOver(A, OK),)
    assert story.fold(RunResumed(B, (*kept, CarriedOver(C, OK)), (0,), ()))[-1] == RunStep(B, 1)
    story = Story(**steps)
    asked = questions(story.plan, story.run, RunResumed(C, kept, (0,), ()))
    assert asked == Questions(TRIGGER)
    story.fold(RunResumed(C, kept, (0,), ()))
    assert story.fold(StepKept(A)) == [record(C, "cancelled", started_at=None), EmitEnd("failed")][::-1]
    assert (story.status, story.steps, story.run.failed_edge) == ("failed", "completed cancelled cancelled", 1)
    story = Story(**steps)
    story.fold(RunResumed(B, kept, (0,), ()))
    assert (story.status, story.steps, story.run.failed_edge) == ("failed", "completed cancelled cancelled", 2)


def test_only_a_run_without_any_facts_can_continue_an_earlier_run() -> None:
    story = Story(a={}, b={"after": [after("a")]})
    story.begin()
    assert story.ignores(RunResumed(B, (CarriedOver(A, OK),), (), ()))
    assert story.ignores(StepKept(A))


# --- attempts that another system executes ---------------------------------------------------------------------------

OVERDUE = Timer(TimerKind.OVERDUE, A, 1)


def passed_on(runtime: str, **more: dict[str, Any]) -> Story:
    """A run whose step `a` is executed by workers of another system, and is claimed."""
    story = Story(a={"timeout": "1h", "retries": {"attempts": 1, "backoff": {"initial": "1s"}}}, **more)
    remote = replace(story.plan.steps[A], runtime=Runtime(runtime))
    story.plan = replace(story.plan, steps=(remote, *story.plan.steps[1:]))
    story.begin()
    assert story.fold(AttemptStarted(A, 1)) == [SetTimer(OVERDUE, NOW + HOUR)]
    return story


@pytest.mark.parametrize("runtime", ["celery", "faktory"])
def test_an_attempt_of_another_system_has_a_timer_until_it_ends(runtime: str) -> None:
    story = passed_on(runtime)
    assert list(outstanding(story.plan, story.run)) == [SetTimer(OVERDUE, NOW + HOUR)]
    assert story.ignores(AttemptEnded(A, 2, OK))
    assert ClearTimer(OVERDUE) in story.fold(AttemptEnded(A, 1, OK))
    assert story.ignores(OVERDUE.fact())
    assert story.steps == "completed"


def test_a_task_that_is_overdue_has_timed_out_and_is_retried() -> None:
    story = passed_on("celery")
    commands = story.fold(OVERDUE.fact(), NOW + HOUR)
    (recorded,) = (command for command in commands if isinstance(command, RecordAttempt))
    assert recorded.error is not None
    assert recorded.error.kind == "timeout"
    assert StopStep(A, 1) in commands
    assert story.steps == "retrying"


def test_a_job_that_a_worker_does_not_end_in_time_is_lost_and_queued_again() -> None:
    story = passed_on("faktory")
    commands = story.fold(OVERDUE.fact(), NOW + HOUR)
    (recorded,) = (command for command in commands if isinstance(command, RecordAttempt))
    assert recorded.status == "lost"
    assert RunStep(A, 2) in commands
    assert StopStep(A, 1) in commands


def test_an_overdue_attempt_settles_conditions_like_any_failure() -> None:
    story = passed_on("celery", b={"after": [after("a", on="failure", if_="true")]})
    story.fold(OVERDUE.fact(), NOW + HOUR)
    story.fold(RetryDue(A, 1))
    story.fold(AttemptStarted(A, 2))
    story.fold(Timer(TimerKind.OVERDUE, A, 2).fact())
    assert story.steps == "failed queued"


@pytest.mark.parametrize("runtime", ["celery", "faktory"])
def test_a_cancelled_run_stops_attempts_of_other_systems_and_clears_their_timers(runtime: str) -> None:
    commands = passed_on(runtime).fold(CancelRequested())
    assert StopStep(A, 1) in commands
    assert ClearTimer(OVERDUE) in commands


def test_a_failed_run_lets_attempts_of_other_systems_end() -> None:
    story = passed_on("celery", b={})
    story.fold(AttemptStarted(B, 1))
    commands = story.fold(AttemptEnded(B, 1, FINAL))
    assert StopStep(A, 1) not in commands
    assert ClearTimer(OVERDUE) not in commands
    assert story.steps == "running failed"


# --- timeouts --------------------------------------------------------------------------------------------------------

START, FINISH = Timer(TimerKind.START, 0), Timer(TimerKind.FINISH, 0)


def limited(**steps: dict[str, Any]) -> Story:
    story = Story(**steps)
    story.plan = replace(story.plan, start_timeout_ms=MINUTE, finish_timeout_ms=HOUR)
    return story


def test_a_run_has_a_timer_until_its_first_attempt_starts_and_then_one_until_it_ends() -> None:
    story = limited(a={}, b={"after": [after("a")]})
    assert story.fold(RunStarted(), NOW + 5) == [SetTimer(START, NOW + MINUTE), RunStep(A, 1)]
    assert SetTimer(START, NOW + MINUTE) in outstanding(story.plan, story.run)
    assert story.fold(AttemptStarted(A, 1), NOW + 7) == [ClearTimer(START), SetTimer(FINISH, NOW + 7 + HOUR)]
    assert list(outstanding(story.plan, story.run)) == [SetTimer(FINISH, NOW + 7 + HOUR)]
    assert story.fold(AttemptEnded(A, 1, OK)) == [completed(A, queued_at=NOW + 5, started_at=NOW + 7), RunStep(B, 1)]
    assert story.fold(AttemptStarted(B, 1)) == []
    commands = story.fold(AttemptEnded(B, 1, OK))
    assert commands == [completed(B), ClearTimer(FINISH), EmitEnd("completed")]
    assert list(outstanding(story.plan, story.run)) == []


def test_a_timeout_cancels_the_run_and_stops_its_attempts() -> None:
    story = limited(a={}, b={"after": [after("a", on="failure")]})
    story.begin()
    story.fold(AttemptStarted(A, 1))
    assert story.ignores(RunTimedOut(TimerKind.START)), "the run has started"
    commands = story.fold(RunTimedOut(TimerKind.FINISH), NOW + HOUR)
    assert commands == [
        ClearTimer(FINISH),
        EmitEnd("cancelled"),
        StopStep(A, 1),
        record(A, "cancelled", ended_at=NOW + HOUR),
    ]
    assert (story.status, story.steps, story.run.timed_out) == ("cancelled", "cancelled cancelled", "finish")
    assert story.ignores(RunTimedOut(TimerKind.FINISH))
    assert story.ignores(AttemptEnded(A, 1, OK))


def test_a_run_that_ends_before_its_first_attempt_needs_no_timer_any_more() -> None:
    story = limited(a={"after": [after("$trigger", if_="false")]})
    assert story.begin() == [SetTimer(START, NOW + MINUTE), ClearTimer(START), EmitEnd("completed")]
    story = limited(a={})
    story.begin()
    story.fold(RunTimedOut(TimerKind.START), NOW + MINUTE)
    assert (story.status, story.steps, story.run.timed_out) == ("cancelled", "cancelled", "start")


def test_attempts_of_a_run_that_failed_go_on_whatever_its_timeouts_are() -> None:
    story = limited(a={}, b={})
    story.begin()
    story.fold(AttemptStarted(B, 1))
    story.end(A, FINAL)
    assert (story.status, story.steps) == ("failed", "failed running")
    assert story.ignores(RunTimedOut(TimerKind.FINISH))


def test_a_run_that_did_not_time_out_is_packed_as_before() -> None:
    story = limited(a={})
    assert len(orjson.loads(pack(story.run))) == 10


@pytest.mark.parametrize("timer", [START, FINISH])
def test_the_timer_of_a_timeout_has_its_fact(timer: Timer) -> None:
    assert timer_of(timer.fact()) == timer


# --- delays until a time ---------------------------------------------------------------------------------------------

LATER: dict[str, Any] = {"wait": {"until": "data.at"}}
PAID: dict[str, Any] = {"event": "paid", "ttl": "1h"}


def delayed(at: Moment, *edges: dict[str, Any]) -> Story:
    """A run whose step `a` is about to end, and of which each other step comes after one of the edges."""
    story = Story(a={}, **{f"b{i}": {"after": [edge]} for i, edge in enumerate(edges)})
    story.moments = dict.fromkeys(range(1, 1 + len(edges)), at)
    story.begin()
    return story


def test_edges_until_the_same_time_share_a_pause_and_others_do_not() -> None:
    others = after("a", wait={"until": "data.other"}), after("a", wait="1h"), after("a", **LATER, async_=PAID)
    story = delayed(Moment(NOW + HOUR), after("a", **LATER), after("a", **LATER), *others)
    assert [pause.edges for pause in story.plan.pauses] == [(1, 2), (3,), (4,), (5,)]
    timers = [command for command in story.end(A) if isinstance(command, SetTimer)]
    assert timers == [SetTimer(delay(p), NOW + HOUR) for p in (0, 1, 2, 3)]
    story.fold(DelayEnded(0), NOW + HOUR)
    assert story.steps == "completed queued queued pending pending pending"


def test_a_time_in_the_past_starts_the_step_in_the_same_transition() -> None:
    for at in (0, NOW - 1, NOW):
        story = delayed(Moment(at), after("a", **LATER))
        assert story.end(A) == [completed(A), RunStep(B, 1)]
        assert (story.pauses, story.edges) == ("elapsed", "satisfied satisfied")
        assert list(outstanding(story.plan, story.run)) == [RunStep(B, 1)]


def test_a_wait_after_a_time_in_the_past_opens_at_once() -> None:
    story = delayed(Moment(0), after("a", **LATER, async_=PAID))
    assert story.end(A) == [completed(A), *opened()]
    assert story.pauses == "awaiting"


def test_an_edge_without_a_time_fails_the_run() -> None:
    story = delayed(Moment(problem="none"), after("a", **LATER))
    assert story.end(A) == [completed(A), EmitEnd("failed")]
    assert (story.status, story.run.failed_edge, story.run.problems) == ("failed", 1, (("until", 1, "none"),))


@pytest.mark.parametrize("edge", [after("a", **LATER, if_="false"), after("a", **LATER, on="failure")])
def test_an_edge_that_is_not_taken_needs_no_time(edge: dict[str, Any]) -> None:
    story = delayed(Moment(problem="none"), edge)
    story.end(A)
    assert (story.status, story.steps, story.run.problems) == ("completed", "completed skipped", ())
