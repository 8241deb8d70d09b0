"""The newest runs of a function, by which a guard compares versions."""

from __future__ import annotations

from itertools import islice

from stepwell.aws.table.items import read_items
from stepwell.aws.table.keys import run_key
from stepwell.aws.table.list_layout import RUNS, of_function
from stepwell.aws.table.lists import Lists
from stepwell.aws.table.runs import stored_run
from stepwell.core.routing.guard import RunSample


def read_samples(table: str, lists: Lists, function_id: str, limit: int) -> list[RunSample]:
    """The newest `limit` runs without reruns and replays, newest first."""
    entries = islice(lists.entries(RUNS, of_function(function_id), None, limit), limit)
    items = read_items(table, [run_key(run_id) for _, run_id in entries], consistent=False)
    runs = [
        stored_run
        for stored_run in map(stored_run, items)
        if stored_run.function == function_id and not (stored_run.rerun_of or stored_run.replay)
    ]
    runs.sort(key=lambda stored_run: stored_run.position, reverse=True)
    return [RunSample(run.version, run.run.status, run.run.created_at, run.run.ended_at) for run in runs]
