"""bench/growth.py: copied histories are complete, and aims are checked correctly."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from stepwell.local.queries.queries import Queries
from stepwell.testing.local import LocalStepwell

BENCH = Path(__file__).resolve().parent.parent / "bench"
FUNCTIONS = BENCH / "functions"
DAY_MS = 86_400_000


@pytest.fixture(autouse=True)
def bench() -> Iterator[None]:
    sys.path.insert(0, str(BENCH))
    yield
    sys.path.remove(str(BENCH))


def count(database: Path, table: str) -> int:
    with closing(sqlite3.connect(database)) as connection:
        (rows,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(rows)


def test_a_copied_history_has_the_same_number_of_rows_per_run(tmp_path: Path) -> None:
    from growth_history import copy_history

    with closing(LocalStepwell(tmp_path)) as stepwell:
        stepwell.deploy(FUNCTIONS / "fill")
        for n in range(3):
            stepwell.runs(stepwell.send("bench/fill", {"id": n}, user={"id": "hot"}))
    database = next(tmp_path.rglob("*.db"))
    before = {table: count(database, table) for table in ("events", "runs", "attempts")}

    copy_history(database, 4, 2 * DAY_MS)

    assert {table: count(database, table) for table in before} == {table: 5 * rows for table, rows in before.items()}
    queries = Queries(database)
    runs = queries.read_runs(limit=100).items
    events = [event.event for event in queries.read_events(name="bench/fill", limit=100).items]
    assert len({run.run.id for run in runs}) == len({event.id for event in events}) == 15
    assert {run.event_id for run in runs} == {event.id for event in events}
    assert {attempt.status for run in runs for attempt in run.attempts} == {"completed"}


def aims(**bounds: float) -> Any:
    from growth_row import Aim

    return Aim(**bounds)


@pytest.mark.parametrize(
    ("bounds", "values", "is_met"),
    [
        ({"most": 5}, [1, 2, 5], True),
        ({"most": 5}, [1, 2, 6], False),
        ({"least": 5}, [9, 2, 4], False),
        ({"least_ratio": 0.7}, [100, 1, 70], True),
        ({"least_ratio": 0.7}, [100, 90, 60], False),
        ({"most_ratio": 2, "most": 5}, [1, 1, 3], False),
    ],
)
def test_an_aim_limits_the_largest_size_and_the_ratio_to_the_smallest(
    bounds: dict[str, float], values: list[float], is_met: bool
) -> None:
    assert aims(**bounds).is_met(values) is is_met


def test_sizes_are_measured_in_turns_and_medians_count(tmp_path: Path) -> None:
    from growth_row import Figure, Row, measure

    order = []

    @contextmanager
    def open_size(size: int, folder: Path) -> Iterator[Any]:
        assert folder.is_dir()
        answers = iter([size * 10, size, size * 2])

        def once() -> dict[str, float]:
            order.append(size)
            return {"ms": next(answers)}

        yield once

    row = Row("things", "things", (1, 2), (1,), open_size, (Figure("ms", "a thing", "ms"),))
    (result,) = measure(row, row.sizes, 3, tmp_path, lambda text: None)

    assert order == [1, 2, 1, 2, 1, 2]
    assert list(result.values) == [2, 4]


def test_the_table_in_the_readme_marks_missed_aims() -> None:
    from growth import as_json, as_markdown
    from growth_row import Aim, Figure, Result, Row

    row = Row("things", "things", (1, 20, 3_000), (1,), open_nothing, ())
    results = [
        Result(Figure("ms", "a thing", "ms", Aim(most_ratio=2)), [1, 1, 1.5]),
        Result(Figure("other", "another", "ms", Aim(most=50)), [0, 1, 120]),
    ]
    about: dict[str, str | int] = {"cores": 2, "cpu": "a processor", "python": "3.11", "date": "2026-01-01"}

    assert as_markdown([as_json(row, row.sizes, results)], about).splitlines()[4:] == [
        "| `things` | a thing, ms | 1 / 20 / 3,000 | 1.00 | 1.00 | 1.50 | 1.50 | x <= 2 |",
        "|  | another, ms |  | 0.00 | 1.00 | 120 | – | <= 50 (missed) |",
    ]


@contextmanager
def open_nothing(size: int, folder: Path) -> Iterator[Any]:
    yield dict
