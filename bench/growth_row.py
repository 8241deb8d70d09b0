"""A row of `growth.py`: something that grows, at three sizes, and the figures that are measured at each size."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

Figures = Mapping[str, float]
Measure = Callable[[], Figures]
Open = Callable[[int, Path], AbstractContextManager[Measure]]


@dataclass(frozen=True, slots=True)
class Aim:
    """The target of a figure: bounds of the value at the largest size, and of largest / smallest."""

    least: float | None = None
    most: float | None = None
    least_ratio: float | None = None
    most_ratio: float | None = None

    def is_met(self, values: Sequence[float]) -> bool:
        return all(
            [
                self.least is None or values[-1] >= self.least,
                self.most is None or values[-1] <= self.most,
                self.least_ratio is None or ratio(values) >= self.least_ratio,
                self.most_ratio is None or ratio(values) <= self.most_ratio,
            ]
        )

    def __str__(self) -> str:
        bounds = [
            (self.least, ">= {:,.10g}"),
            (self.most, "<= {:,.10g}"),
            (self.least_ratio, "x >= {:g}"),
            (self.most_ratio, "x <= {:g}"),
        ]
        return ", ".join(form.format(bound) for bound, form in bounds if bound is not None)


@dataclass(frozen=True, slots=True)
class Figure:
    """`key`: the key of the figure in a row's measurements."""

    key: str
    title: str
    unit: str
    aim: Aim = Aim()


@dataclass(frozen=True, slots=True)
class Row:
    """`grows`: what grows.

    `open(size, folder)` prepares this size in an empty folder, and yields a function that measures it once. `rounds`:
    how often each size is measured; the median counts.
    """

    name: str
    grows: str
    sizes: tuple[int, ...]
    quick: tuple[int, ...]
    open: Open
    figures: tuple[Figure, ...]
    rounds: int = 3


@dataclass(frozen=True, slots=True)
class Result:
    figure: Figure
    values: Sequence[float]

    @property
    def is_met(self) -> bool:
        return self.figure.aim.is_met(self.values)


def ratio(values: Sequence[float]) -> float:
    """Value at the largest size / value at the smallest; 1 if both are 0."""
    return 1.0 if values[-1] == values[0] else values[-1] / values[0] if values[0] else float("inf")


def measure(
    row: Row, sizes: Sequence[int], rounds: int, folder: Path, progress: Callable[[str], object]
) -> list[Result]:
    """Measures all sizes of a row in turns, after all are prepared, so that changes in the machine's speed affect all
    of them. Raises BenchError."""
    with ExitStack() as stack:
        measures = []
        for size in sizes:
            progress(f"{row.name}: {size:,} {row.grows}: made ready")
            place = folder / f"{row.name}-{size}"
            place.mkdir()
            measures.append(stack.enter_context(row.open(size, place)))
        taken: list[list[Figures]] = [[] for _ in sizes]
        for number in range(rounds):
            for size, once, figures in zip(sizes, measures, taken, strict=True):
                progress(f"{row.name}: {size:,} {row.grows}: {number + 1} of {rounds}")
                figures.append(once())
    return [Result(figure, list(_medians(figure.key, taken))) for figure in row.figures]


def _medians(key: str, taken: Sequence[Sequence[Figures]]) -> Iterator[float]:
    for figures in taken:
        yield statistics.median(each[key] for each in figures)
