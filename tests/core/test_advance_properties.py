"""Tests random functions in random interleavings of facts against a model that states the rules of a run directly.

The function itself defines what happens: an `if` is `true`, `false` or BROKEN (without a value), the event `comes` or
`never` comes, and a script for each step defines how the attempts end. So the model needs no history, and every
interleaving must agree with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any, TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepwell.core.cel.answer import Answer
from stepwell.core.compile import compile_plan
from stepwell.core.definition.definition import parse_definition
from stepwell.core.duration import parse_duration
from stepwell.core.plan import TRIGGER, Plan
from stepwell.core.run.advance import advance
from stepwell.core.run.answers import Answers, Moment, WaitKey
from stepwell.core.run.inputs import error_json
from stepwell.core.run.messages import (
    AttemptEnded,
    AttemptLost,
    AttemptStarted,
    CancelRequested,
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
    RunStarted,
    RunStep,
    RunTimedOut,
    SetTimer,
    StopStep,
    Timer,
    TimerKind,
)
from stepwell.core.run.outstanding import outstanding
from stepwell.core.run.questions import questions
from stepwell.core.run.resume import Earlier, Restart, resumption
from stepwell.core.run.run import (
    ENDED_STEPS,
    Packer,
    PauseStatus,
    Run,
    RunStatus,
    StepStatus,
    new_run,
    pack,
    steps_of,
    unpack,
)
from stepwell.core.run.transitions import EDGE, PAUSE, RUN, STEP, Table

S = TypeVar("S")

OUTCOMES = {
    "ok": Outcome(output=b"1"),
    "error": Outcome(error=Error("exit", "exit status 1")),
    "final": Outcome(error=Error("status", "404", 404), retryable=False),
}
BROKEN = "data.x"
ANSWERS = {"true": Answer(True), "false": Answer(False), BROKEN: Answer(False, "no such key: x")}
PAST, FUTURE = "data.past", "data.future"
MOMENTS = {PAST: Moment(500), FUTURE: Moment(3_600_000), BROKEN: Moment(problem="no such key: x")}
QUICK = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])


# --- random functions ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Function:
    definition: dict[str, Any]  # normalised
    scripts: dict[str, list[str]]  # how the attempts of each step end; after the last entry: ok

    @property
    def steps(self) -> dict[str, Any]:
        steps: dict[str, Any] = self.definition["steps"]
        return steps

    def ends(self, step: str) -> list[str]:
        """How each attempt ends if the run does not end before: the script up to the last entry that is reached."""
        retries, failures, losses = self.steps[step]["retries"]["attempts"], 0, 0
        taken: list[str] = []
        for word in itertools.chain(self.scripts[step], itertools.repeat("ok")):
            taken.append(word)
            failures += word == "error"
            losses += word == "lost"
            if word in ("ok", "final") or failures > retries or losses == 4:
                return taken
        raise AssertionError


@st.composite
def edges(draw: st.DrawFn, parents: list[str]) -> dict[str, Any]:
    edge: dict[str, Any] = {"step": draw(st.sampled_from(parents))}
    if edge["step"] != "$trigger":
        edge["on"] = draw(st.sampled_from(["success", "always", "failure"]))
    if draw(st.integers(0, 3)) == 3:
        edge["if"] = draw(st.sampled_from(["true", "true", "false", "false", BROKEN]))
    if draw(st.integers(0, 3)) == 3:
        edge["wait"] = draw(st.sampled_from(["10s", "1h", {"until": PAST}, {"until": FUTURE}, {"until": BROKEN}]))
    if draw(st.integers(0, 2)) == 2:
        edge["async"] = {
            "event": draw(st.sampled_from(["comes", "never", "hopeless"])),
            "ttl": draw(st.sampled_from(["1m", "2h"])),
            "onTimeout": draw(st.booleans()),
        }
    return edge


TIMEOUTS = st.fixed_dictionaries({}, optional={"start": st.just("1m"), "finish": st.sampled_from(["30s", "2h"])})


@st.composite
def functions(draw: st.DrawFn, cancels: tuple[str, ...] = ("never", "hopeless"), *, timeouts: bool = False) -> Function:
    """A random function. `cancels`: the events that rules of `cancel` may wait for. `timeouts`: whether it may have
    any."""
    ids = [f"s{i}" for i in range(draw(st.integers(1, 7)))]
    steps: dict[str, Any] = {}
    for i, step_id in enumerate(ids):
        steps[step_id] = {
            "path": "file://.",
            "join": draw(st.sampled_from(["merge", "all", "first"])),
            "after": draw(st.lists(edges(["$trigger", *ids[:i], *ids[:i]]), max_size=3)),
            "retries": {"attempts": draw(st.integers(0, 2)), "backoff": {"initial": "5s"}},
        }
    asking = [step_id for step_id in ids if draw(st.integers(0, 4)) == 4]
    for step_id in asking:
        steps[step_id] |= {"path": "", "retries": None, "runtime": {"type": "approval", "message": "Really?"}}
    words = st.sampled_from(["ok", "ok", "ok", "error", "final", "lost"])
    stubborn = st.sampled_from([["error"] * 2, ["error"] * 3, ["lost"] * 3, ["lost"] * 4])
    scripts = {step_id: draw(st.lists(words, max_size=5) | stubborn) for step_id in ids}
    scripts |= {
        step_id: draw(st.sampled_from([["ok"], ["final"]])) for step_id in asking
    }  # "final": there is no decision
    in_any_order = {step_id: steps[step_id] for step_id in draw(st.permutations(ids))}
    rules = st.fixed_dictionaries({"event": st.sampled_from(cancels)}, optional={"timeout": st.just("1h")})
    cancel = draw(st.lists(rules, max_size=2)) if cancels else []
    limits = draw(TIMEOUTS) if timeouts else {}
    raw = {"id": "f", "triggers": [{"event": "go"}], "steps": in_any_order, "cancel": cancel}
    definition = parse_definition({**raw, "timeouts": limits or None})
    return Function(definition.normalised(), scripts)


# --- the model: the rules of a run, without time, facts or state -----------------------------------------------------


class Model:
    """How a run ends.

    `statuses`: the status of each step, valid if all failures are handled and no `if` is undecided. `unhandled`: the
    steps with unhandled failures. `undecided`: the edges whose `if` has no value. `forced`: a step that runs without
    its edges being evaluated. `kept`: steps that ended in an earlier run; the edges between them, and from them to
    `forced`, are not evaluated again.
    """

    def __init__(self, function: Function, forced: str | None = None, kept: Collection[str] = ()) -> None:
        self.function, self.forced = function, forced
        self.status = cache(self._status)
        self.statuses = {step: self.status(step) for step in function.steps}
        self.unhandled = {
            step for step, status in self.statuses.items() if status == "failed" and not self._is_handled(step)
        }
        self.undecided: set[tuple[str, int]] = set()
        self.perhaps: set[tuple[str, int]] = set()  # edges from a kept step to a step that may have been decided before
        for step, item in function.steps.items():
            for i, edge in enumerate(item["after"]):
                stands = step in {forced, *kept} and edge["step"] in {"$trigger", *kept}
                has_no_time = edge.get("wait") == {"until": BROKEN} and self.passes(edge)
                has_no_value = has_no_time or (edge.get("if") == BROKEN and self._is_evaluated(edge))
                if has_no_value and not stands:
                    is_sure = item["join"] == "merge" or edge["step"] not in kept
                    (self.undecided if is_sure else self.perhaps).add((step, i))

    @property
    def fails(self) -> bool:
        return bool(self.unhandled or self.undecided)

    def _status(self, step: str) -> str:
        value = self.function.steps[step]
        satisfied = [self.is_satisfied(edge) for edge in value["after"]]
        if step != self.forced and not (all(satisfied) if value["join"] == "all" else any(satisfied)):
            return "skipped"
        return "completed" if self.function.ends(step)[-1] == "ok" else "failed"

    def passes(self, edge: dict[str, Any]) -> bool:
        """Whether `on` and `if` hold, so that the delay or the wait of the edge begins."""
        return self._is_evaluated(edge) and edge.get("if", "true") == "true"

    def _is_evaluated(self, edge: dict[str, Any]) -> bool:
        on = {"success": ("completed",), "failure": ("failed",), "always": ("completed", "failed")}
        return edge["step"] == "$trigger" or self.status(edge["step"]) in on[edge["on"]]

    def is_satisfied(self, edge: dict[str, Any]) -> bool:
        wait = edge.get("async")
        return self.passes(edge) and (wait is None or (wait["event"] == "comes") != wait["onTimeout"])

    def _is_handled(self, failed: str) -> bool:
        return any(
            edge["step"] == failed and edge["on"] in ("failure", "always") and edge.get("if", "true") == "true"
            for step in self.function.steps.values()
            for edge in step["after"]
        )


# --- the world: carries out commands in any order, more than once, and sometimes not at all --------------------------


@dataclass
class World:
    function: Function
    chance: Random
    forced: str | None = None
    plan: Plan = field(init=False)
    run: Run = field(init=False)
    now: int = 1_000
    due: list[Fact] = field(default_factory=list)  # facts that are true and not folded yet
    timers: dict[Timer, int] = field(default_factory=dict)
    waits: set[int] = field(default_factory=set)
    over: set[int] = field(default_factory=set)  # pauses that elapsed, matched or expired
    stopped: set[tuple[int, int]] = field(default_factory=set)
    records: list[RecordAttempt] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    packer: Packer = field(init=False)
    parts: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.plan = compile_plan(self.function.definition, 1)
        self.run = new_run("run", self.plan, self.now)
        self.packer = Packer(self.run)
        self.model = Model(self.function, self.forced)

    def live(self, cancel_after: int | None = None, resumed: Sequence[Fact] = ()) -> None:
        """Drives the run from the start to the end, until no facts are due and no commands outstanding. `resumed`: the
        first facts of a run that continues an earlier one."""
        if resumed:
            self.fold(resumed[0])
            self.due += resumed[1:]
        else:
            self.due.append(RunStarted())
        for number in itertools.count():
            assert number < 2_000, "the run does not end"
            if number == cancel_after:
                self.fold(CancelRequested())
            if not self.due:  # commands that were lost are repeated
                for command in outstanding(self.plan, self.run):
                    self.obey(command)
            if not self.due:
                return
            i = self.chance.randrange(len(self.due))
            fact = self.due[i] if self.chance.random() < 0.2 else self.due.pop(i)
            self.fold(fact)

    def fold(self, fact: Fact) -> None:
        self.now += self.chance.choice([0, 1, 5_000])
        for timer in [timer for timer in self.timers if timer.fact() == fact]:
            self.now = max(self.now, self.timers.pop(timer))
        before = self.run
        asked = questions(self.plan, before, fact)
        answers = Answers(
            {e: ANSWERS[self.plan.edges[e].condition or ""] for e in asked.edges},
            {p: self._key(p) for p in asked.pauses},
            {e: self._moment(e) for e in asked.moments},
        )
        decision = advance(self.plan, before, fact, answers, self.now)
        assert unpack("run", pack(decision.run)) == decision.run
        state, changed = self.packer.pack(decision.run)
        self.parts |= dict(changed)
        assert unpack("run", state, self.parts.items()) == decision.run
        steps, counted = steps_of(decision.run), steps_of(decision.run._replace(steps=tuple(decision.run.steps)))
        assert (steps.open, steps.busy) == (counted.open, counted.busy)
        self.run = decision.run
        if decision.run is before:
            owed = () if isinstance(fact, AttemptStarted) else tuple(outstanding(self.plan, before))
            assert decision.commands == owed
        else:
            self._accepted(fact, before)
        for command in decision.commands:
            lost = isinstance(command, RunStep | SetTimer | OpenWait) and self.chance.random() < 0.15
            if not lost:
                self.obey(command)
        if self.run.status is not RunStatus.RUNNING:  # at once, not only after the last timer
            assert (self.timers, self.waits, list(outstanding(self.plan, self.run))) == ({}, set(), [])

    def obey(self, command: Command) -> None:
        match command:
            case RunStep(step, attempt):
                self._add(AttemptStarted(step, attempt))
            case SetTimer(timer, due_at):
                self.timers[timer] = due_at
                if timer.kind is TimerKind.DECISION:
                    comes_first = self._word(timer.index, timer.attempt) == "ok"
                else:
                    comes_first = timer.kind is TimerKind.DEADLINE and self._event(timer.index) == "comes"
                if not comes_first:
                    self._add(timer.fact())
            case ClearTimer(timer):  # a timer may fire although it was cleared: its fact stays due
                self.timers.pop(timer, None)
            case OpenWait(pause):
                assert self._event(pause) != "hopeless"
                self.waits.add(pause)
                if self._event(pause) == "comes":
                    self._add(EventArrived(pause, f"event-{pause}"))
            case CloseWait(pause):
                self.waits.discard(pause)
            case StopStep(step, attempt):
                self.stopped.add((step, attempt))
            case RecordAttempt():
                self.records.append(command)
            case EmitEnd(status):
                self.ends.append(status)

    def _word(self, step: int, attempt: int) -> str:
        return self.function.ends(self.plan.steps[step].id)[attempt - 1]

    def _event(self, pause: int) -> str | None:
        return self.plan.pauses[pause].event

    def _moment(self, edge: int) -> Moment:
        pause = self.plan.edges[edge].pause
        assert pause is not None
        return MOMENTS[self.plan.pauses[pause].until or ""]

    def _key(self, pause: int) -> WaitKey:
        return WaitKey(None, "no such key") if self._event(pause) == "hopeless" else WaitKey(b"key")

    def _add(self, fact: Fact) -> None:
        if fact not in self.due:
            self.due.append(fact)

    def _accepted(self, fact: Fact, before: Run) -> None:
        if isinstance(fact, AttemptStarted):
            word, asks = self._word(fact.step, fact.attempt), self.plan.steps[fact.step].is_approval
            pair = fact.step, fact.attempt
            if word == "lost" or asks:  # an attempt of an approval cannot be lost
                self._add(AttemptLost(*pair))
            if word == "ok" or (word != "lost" and not asks):
                self._add(AttemptEnded(*pair, OUTCOMES[word]))
        elif isinstance(fact, EventArrived | DeadlinePassed) or (
            isinstance(fact, DelayEnded) and self._event(fact.pause) is None
        ):
            self.over.add(fact.pause)
        self.over |= {p for p, pause in enumerate(self.run.pauses) if pause.status is PauseStatus.ELAPSED}
        self._check_moves(before, self.run)
        for i, (old, new) in enumerate(zip(before.steps, self.run.steps, strict=True)):
            if old.status is StepStatus.PENDING and new.status is StepStatus.QUEUED:
                assert self._may_start(i)

    def _check_moves(self, old: Run, new: Run) -> None:
        """Checks that all changes are moves of the tables: one for runs and steps, at most two for edges and pauses."""
        assert new.status in _within(1, RUN, old.status)
        for before, after in zip(old.steps, new.steps, strict=True):
            assert after.status in _within(1, STEP, before.status)
        for edge, then in zip(old.edges, new.edges, strict=True):
            assert then in _within(2, EDGE, edge)
        for pause, later in zip(old.pauses, new.pauses, strict=True):
            assert later.status in _within(2, PAUSE, pause.status)

    def _may_start(self, i: int) -> bool:
        """Whether the join of a step allows it to start, given the events so far."""
        step = self.function.steps[self.plan.steps[i].id]
        if self.plan.steps[i].id == self.forced:
            return True
        settled, satisfied = [], []
        for e, edge in zip(self.plan.steps[i].edges, step["after"], strict=True):
            compiled = self.plan.edges[e]
            ended = compiled.parent == TRIGGER or self.run.steps[compiled.parent].status in ENDED_STEPS
            paused = compiled.pause is not None and self.model.passes(edge) and compiled.pause not in self.over
            settled.append(ended and not paused)
            satisfied.append(settled[-1] and self.model.is_satisfied(edge))
        enough = {"merge": all(settled) and any(satisfied), "all": all(satisfied), "first": any(satisfied)}
        return enough[step["join"]]

    # what was observed

    @property
    def statuses(self) -> dict[str, str]:
        return {step.id: state.status.name.lower() for step, state in zip(self.plan.steps, self.run.steps, strict=True)}

    def words(self, step: str) -> list[str]:
        """How the recorded attempts of a step ended, in order. Checks that each number is recorded once."""
        records = [r for r in self.records if self.plan.steps[r.step].id == step and r.status != "kept"]
        assert [record.attempt for record in records] == list(range(1, len(records) + 1))
        return [record.status for record in records]

    def check_end(self) -> None:
        """Checks the properties of every run that has ended."""
        assert self.run.status is not RunStatus.RUNNING
        assert self.ends == [self.run.status.name.lower()]
        assert all(state.status in ENDED_STEPS for state in self.run.steps)
        for step, state in zip(self.plan.steps, self.run.steps, strict=True):
            words = self.words(step.id)
            assert len(words) == state.attempt <= 1 + step.retries.attempts + 3
            assert words.count("failed") + words.count("completed") <= 1 + step.retries.attempts
            assert words.count("lost") <= 4


def _within(moves: int, table: Table[S], state: S) -> set[S]:
    """The states that can be reached with at most this number of moves of a table."""
    reached = {state}
    for _ in range(moves):
        reached |= {target for source in reached for target in table.get(source, {}).values()}
    return reached


RECORDED = {"ok": "completed", "error": "failed", "final": "failed", "lost": "lost"}


# --- properties ------------------------------------------------------------------------------------------------------


@QUICK
@given(functions(), st.lists(st.integers(0, 2**32), min_size=3, max_size=3))
def test_every_interleaving_ends_as_the_model_says(function: Function, seeds: list[int]) -> None:
    model = Model(function)
    for seed in seeds:
        world = World(function, Random(seed))
        world.live()
        world.check_end()
        if model.fails:
            check_failed(world, model)
            continue
        assert (world.run.status, world.run.failed_step) == (RunStatus.COMPLETED, None)
        assert world.statuses == model.statuses
        for step, status in model.statuses.items():
            expected = [] if status == "skipped" else [RECORDED[word] for word in function.ends(step)]
            assert world.words(step) == expected


def check_failed(world: World, model: Model) -> None:
    """Checks a failed run. An unhandled failure or an `if` without a value ends the run at once, so the statuses of the
    other steps depend on the interleaving."""
    assert world.run.status is RunStatus.FAILED
    failed_step, failed_edge = world.run.failed_step, world.run.failed_edge
    assert (failed_step is None) != (failed_edge is None)
    if failed_step is not None:
        assert world.plan.steps[failed_step].id in model.unhandled
        assert world.run.steps[failed_step].status is StepStatus.FAILED
    if failed_edge is not None:
        step = world.plan.steps[world.plan.edges[failed_edge].step]
        assert (step.id, step.edges.index(failed_edge)) in model.undecided | model.perhaps
    for step, status in world.statuses.items():
        its_own = [RECORDED[word] for word in world.function.ends(step)]
        words = world.words(step)
        allowed = {model.statuses[step], "cancelled"}
        if model.statuses[step] == "completed" and len(its_own) > 1:
            allowed.add("failed")  # it was running when the run failed, and was not retried
        assert status in allowed
        assert [word for word in words if word != "cancelled"] == its_own[: len(words) - words.count("cancelled")]


@QUICK
@given(functions(), st.integers(0, 2**32), st.integers(0, 40))
def test_a_cancel_at_any_moment_ends_everything_at_once(function: Function, seed: int, moment: int) -> None:
    world = World(function, Random(seed))
    world.live(cancel_after=moment)
    world.check_end()
    if world.run.status is not RunStatus.CANCELLED:
        assert world.stopped == set()
        return
    ran = {
        (record.step, record.attempt)
        for record in world.records
        if record.status == "cancelled"
        and record.started_at is not None
        and not world.plan.steps[record.step].is_approval
    }
    assert world.stopped == ran
    assert set(world.statuses.values()) <= {"completed", "failed", "skipped", "cancelled"}
    model = Model(function)
    assert all(status in (model.statuses[step], "cancelled") for step, status in world.statuses.items())


@QUICK
@given(functions(("comes", "comes", "never", "hopeless")), st.integers(0, 2**32))
def test_an_event_that_cancels_the_run_may_come_at_any_moment(function: Function, seed: int) -> None:
    world, model = World(function, Random(seed)), Model(function)
    world.live()
    world.check_end()
    by = [p for p in world.plan.cancels if world.run.pauses[p].event_id is not None]
    assert len(by) == (world.run.status is RunStatus.CANCELLED)
    if not by:
        its_end = (RunStatus.FAILED if model.fails else RunStatus.COMPLETED, world.statuses)
        assert model.fails or its_end == (world.run.status, model.statuses)
        return
    assert world.plan.pauses[by[0]].event == "comes"
    assert all(status in (model.statuses[step], "cancelled") for step, status in world.statuses.items())


@QUICK
@given(functions(timeouts=True), st.integers(0, 2**32))
def test_a_run_never_outlives_its_timeouts_whatever_happens(function: Function, seed: int) -> None:
    """A timer may fire at any moment after it is due. It cancels a run that has not started, or not ended, and no
    other."""
    world, model = World(function, Random(seed)), Model(function)
    world.live()
    world.check_end()
    run, limits = world.run, function.definition.get("timeouts", {})
    assert (run.status is RunStatus.CANCELLED) == (run.timed_out is not None)
    if run.timed_out is None:
        if not model.fails:
            assert (run.status, world.statuses) == (RunStatus.COMPLETED, model.statuses)
        return
    since = {"start": run.created_at, "finish": run.started_at}[run.timed_out]
    assert run.timed_out in limits
    assert (run.timed_out == "start") == (run.started_at is None)
    assert since is not None
    assert run.ended_at is not None
    assert run.ended_at >= since + parse_duration(limits[run.timed_out])
    assert all(status in (model.statuses[step], "cancelled") for step, status in world.statuses.items())


def resumed_from(world: World, step: str) -> list[Any]:
    """Continues this run from a step, with the outputs and errors that it recorded."""
    outputs = {r.step: r.output for r in world.records if r.output is not None}
    errors = {r.step: error_json(r.error) for r in world.records if r.error is not None}
    return resumption(Earlier(world.plan, world.run, outputs, errors), world.plan, Restart(step))


@QUICK
@given(functions(), st.data(), st.integers(0, 40), st.lists(st.integers(0, 2**32), min_size=3, max_size=3))
def test_a_continued_run_ends_as_the_model_says_in_every_interleaving(
    function: Function, data: st.DataObject, moment: int, seeds: list[int]
) -> None:
    """The earlier run may have completed, failed, or been cancelled at any moment. Continuing it from the step that ran
    first, without edited outputs, ends in the same way as the earlier run."""
    step = data.draw(st.sampled_from(sorted(function.steps)))
    first = World(function, Random(seeds[0]))
    first.live(cancel_after=data.draw(st.none() | st.just(moment)))
    resumed = resumed_from(first, step)
    kept = [first.plan.steps[item.step].id for item in resumed[0].kept]
    model = Model(function, step, kept)
    for seed in seeds:
        world = World(function, Random(seed), step)
        world.live(resumed=resumed)
        world.check_end()
        for i, (before, item) in enumerate(zip(first.run.steps, world.plan.steps, strict=True)):
            runs_again = step in (item.id, *(world.plan.steps[a].id for a in item.ancestors))
            if before.status is StepStatus.COMPLETED and not runs_again:
                assert (world.run.steps[i].status, world.words(item.id)) == (StepStatus.COMPLETED, [])
        if model.fails or (model.perhaps and world.run.failed_edge is not None):
            check_failed(world, model)
            continue
        assert (world.run.status, world.statuses) == (RunStatus.COMPLETED, model.statuses)
        if first.run.status is RunStatus.COMPLETED and first.statuses[step] != "skipped":
            assert world.statuses == first.statuses


@QUICK
@given(functions(timeouts=True), st.integers(0, 2**32))
def test_no_late_fact_changes_a_run_that_has_ended(function: Function, seed: int) -> None:
    world = World(function, Random(seed))
    world.live()
    late: list[Fact] = [RunStarted(), CancelRequested(), *map(RunTimedOut, (TimerKind.START, TimerKind.FINISH))]
    for i, state in enumerate(world.run.steps):
        for attempt in range(state.attempt + 2):
            late += [AttemptStarted(i, attempt), AttemptLost(i, attempt), RetryDue(i, attempt)]
            late += [AttemptEnded(i, attempt, outcome) for outcome in OUTCOMES.values()]
    for p in range(len(world.run.pauses)):
        late += [DelayEnded(p), EventArrived(p, "late"), DeadlinePassed(p)]
    ended = world.run
    for fact in late:
        world.fold(fact)
        assert world.run is ended
    world.check_end()
