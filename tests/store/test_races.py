"""Stores that several write to: whoever commits second learns what the run is now."""

from __future__ import annotations

import pytest

from stepwell.core.run.messages import CancelRequested
from stepwell.core.run.run import RunStatus
from stepwell.engine.fold import fold
from stepwell.platform import RunFact, RunRecord
from tests.store.stores import InSqlite, StoreUnderTest
from tests.store.test_conformance import FIRST, FREE, commit, definition, ended, event_of, put, start

RUN = "a" * 26


def test_who_commits_second_gets_the_current_record(store: StoreUnderTest) -> None:
    if isinstance(store, InSqlite):
        pytest.skip("SQLite has one writer")
    plan = store.deploy(definition(a=FIRST, b=FIRST))
    (event,) = put(store, event_of())
    batch = store.begin()
    start(batch, plan, event)
    store.end(batch)
    mine, other = store.begin(), store.begin()
    transition = fold(mine.load([RUN])[RUN], [RunFact(RUN, ended(0, 1))], mine.now, FREE)
    commit(other, RUN, CancelRequested())
    store.end(other)
    (current,) = mine.commit([transition])
    assert isinstance(current, RunRecord)
    assert current.run.status is RunStatus.CANCELLED
    assert commit(mine, RUN, CancelRequested()).run == current.run
    store.end(mine)
