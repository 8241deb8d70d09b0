"""Tests that the cost of a transition does not grow with the number of steps. The cost is counted in function calls,
because times differ between machines."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from stepwell.core.compile import compile_plan
from stepwell.core.definition.definition import parse_definition
from stepwell.core.plan import Plan
from stepwell.core.run.advance import advance
from stepwell.core.run.answers import NO_ANSWERS
from stepwell.core.run.inputs import InputTexts, JoinedOutputs, step_input
from stepwell.core.run.messages import AttemptEnded, AttemptStarted, DelayEnded, Fact, Outcome, RunStarted
from stepwell.core.run.run import PART, Packer, Run, new_run, pack, unpack

OUTPUT = b'{"n":1}'


def plan_of(steps: dict[str, list[str]], join: str = "merge") -> Plan:
    """The definition of a chain of steps."""
    fields = {
        step: {"runtime": {"type": "http", "url": "http://x"}, "join": join, "after": [{"step": one} for one in after]}
        for step, after in steps.items()
    }
    raw = {"id": "f", "triggers": [{"event": "go"}], "steps": fields}
    return compile_plan(parse_definition(raw).normalised(), 1)


def chain(length: int) -> Plan:
    return plan_of({f"s{n}": [f"s{n - 1}"] if n else [] for n in range(length)})


def fold_all(plan: Plan, run: Run, *facts: Fact) -> Run:
    for fact in facts:
        run = advance(plan, run, fact, NO_ANSWERS, 1).run
    return run


def until(plan: Plan, step: int) -> Run:
    """A run of a chain in which this step is running."""
    run = fold_all(plan, new_run("run", plan, 0), RunStarted())
    for n in range(step):
        run = fold_all(plan, run, AttemptStarted(n, 1), AttemptEnded(n, 1, Outcome(OUTPUT)))
    return fold_all(plan, run, AttemptStarted(step, 1))


def calls(do: Callable[[], Any]) -> int:
    """The number of function calls, in Python and in C."""
    count = 0

    def see(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(see)
    try:
        do()
    finally:
        sys.setprofile(None)
    return count


def transition(length: int) -> int:
    """The calls for the second-last step of a chain, from its end to the start of the next step."""
    plan = chain(length)
    run = until(plan, length - 2)
    packer = Packer(run)
    packer.pack(run)
    n = length - 2

    def end() -> None:
        packer.pack(fold_all(plan, run, AttemptEnded(n, 1, Outcome(OUTPUT)), AttemptStarted(n + 1, 1)))

    return calls(end)


def test_a_transition_takes_as_many_calls_in_a_long_chain_as_in_a_short_one() -> None:
    assert transition(16 * PART) == transition(2 * PART)


def test_an_input_takes_as_many_calls_of_many_outputs_as_of_few() -> None:
    def of(length: int) -> int:
        plan = chain(length)
        run, outputs = until(plan, length - 1), dict.fromkeys(range(length - 1), OUTPUT)

        def make() -> None:
            step_input(plan, run, length - 1, InputTexts(b"{}", outputs=outputs), env="dev")

        return calls(make)

    assert of(500) == of(5)


def test_a_long_run_is_unpacked_from_the_parts_that_its_transitions_have_changed() -> None:
    plan = chain(3 * PART - 1)
    run = new_run("run", plan, 0)
    packer, parts = Packer(run), dict[int, bytes]()
    for step in range(3 * PART - 1):
        run = until(plan, step)
        state, changed = packer.pack(run)
        assert len(changed) == (
            1 if step % PART else min(step, 1) + 1
        )  # the part of this step, and that of the step before
        parts |= dict(changed)
        assert unpack("run", state, parts.items()) == unpack("run", pack(run)) == run
    assert packer.pack(run)[1] == []


def test_waits_of_a_long_run_are_packed_in_parts_too() -> None:
    runtime = {"type": "docker", "image": "x"}
    delays = {f"s{n}": {"runtime": runtime, "after": [{"step": "$trigger", "wait": f"{n + 1}h"}]} for n in range(70)}
    raw = {"id": "f", "triggers": [{"event": "go"}], "steps": delays}
    plan = compile_plan(parse_definition(raw).normalised(), 1)
    idle = new_run("run", plan, 0)
    run, packer = fold_all(plan, idle, RunStarted()), Packer(idle)
    state, first = packer.pack(run)
    assert [number for number, _ in first] == [-1, -2, -3]
    run = fold_all(plan, run, DelayEnded(40))
    state, changed = packer.pack(run)
    assert [number for number, _ in changed] == [1, -2]
    assert unpack("run", state, {**dict(first), **dict(changed)}.items()) == run


def test_the_inputs_of_a_run_do_not_depend_on_the_inputs_built_before() -> None:
    plan = plan_of({"a": [], "b": ["a"], "c": ["b"], "x": ["a"], "y": ["x", "c"], "z": ["y"]})
    run = fold_all(plan, new_run("run", plan, 0), RunStarted())
    joined, outputs = JoinedOutputs(), dict[int, bytes]()

    def made(step: int, joined: JoinedOutputs | None) -> bytes:
        return step_input(plan, run, step, InputTexts(b"{}", outputs=outputs, joined=joined), env="dev")

    for step in range(6):
        assert made(step, joined) == made(step, joined) == made(step, None)
        assert [*orjson.loads(made(step, joined))["steps"]] == [plan.steps[a].id for a in plan.steps[step].ancestors]
        run = fold_all(plan, run, AttemptStarted(step, 1), AttemptEnded(step, 1, Outcome(OUTPUT)))
        outputs[step] = b'{"n":%d}' % step


@pytest.mark.parametrize("join", ["merge", "first"])
def test_an_input_leaves_out_just_the_ancestors_that_had_not_ended(join: str) -> None:
    plan = plan_of({"a": [], "b": [], "c": ["a", "b"]}, join)
    run = fold_all(plan, new_run("run", plan, 0), RunStarted(), AttemptStarted(0, 1), AttemptStarted(1, 1))
    run = fold_all(plan, run, AttemptEnded(1, 1, Outcome(OUTPUT)))
    assert run.steps[2].unseen == ((0,) if join == "first" else ())
    run = fold_all(plan, run, AttemptEnded(0, 1, Outcome(OUTPUT)), AttemptStarted(2, 1))
    seen = step_input(plan, run, 2, InputTexts(b"{}", outputs={0: b"0", 1: b"1"}), env="dev")
    assert orjson.loads(seen)["steps"] == ({"b": 1} if join == "first" else {"a": 0, "b": 1})
