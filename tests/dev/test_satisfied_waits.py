"""Which satisfied waits `stepwell dev` prints with an event, and which later."""

from __future__ import annotations

from stepwell.dev.satisfied_waits import SatisfiedWaits


def add(waits: SatisfiedWaits, event: str, run: str = "r", *, cancels: bool = False) -> None:
    waits.add(event, "order/paid", "f", run, [] if cancels else ["a"], cancels=cancels)


def test_an_event_takes_its_own_waits_once() -> None:
    waits = SatisfiedWaits()
    add(waits, "e", "r1")
    add(waits, "e", "r2", cancels=True)
    add(waits, "other")
    taken = waits.take("e")
    assert taken.resumed == [{"function": "f", "run": "r1", "steps": ["a"]}]
    assert taken.cancelled == [{"function": "f", "run": "r2"}]
    assert not waits.take("e")


def test_waits_of_an_event_that_is_not_visible_yet_are_left_for_one_call() -> None:
    waits = SatisfiedWaits()
    add(waits, "e")
    assert list(waits.take_others(set())) == []
    assert waits.take("e")  # the event became visible
    add(waits, "earlier")
    assert list(waits.take_others(set())) == []
    ((event, satisfied),) = waits.take_others(set())
    assert (event, satisfied.name, len(satisfied.resumed)) == ("earlier", "order/paid", 1)
    assert list(waits.take_others(set())) == []


def test_only_the_first_of_many_runs_are_printed() -> None:
    waits = SatisfiedWaits()
    for number in range(1030):
        add(waits, "e", f"r{number}")
    add(waits, "e", "c[red]", cancels=True)
    lines = waits.take("e").text().splitlines()[1:]
    assert len(lines) == 21
    assert lines[0] == "      resumed f [dim]r0[/] at step a"
    assert lines[-1] == "      [dim]... 1,011 more runs[/]"
