"""Stores with several writers: the writer that commits second gets the current record of the run."""

from __future__ import annotations

import pytest

from stepwell.core.run.messages import CancelRequested
from stepwell.core.run.run import RunStatus
from stepwell.engine.fold import fold
from stepwell.platform import RunFact, RunRecord
from tests.store.stores import InSqlite, StoreUnderTest
from tests.store.test_conformance import FIRST, FREE, commit, definition, ended, event_of, put, start

RUN = "a" * 26


def test_the_second_writer_gets_the_current_record(store: StoreUnderTest) -> None:
    if isinstance(store, InSqlite):
        pytest.skip("SQLite has one writer")
    plan = store.deploy(definition(a=FIRST, b=FIRST))
    (event,) = put(store, event_of())
    batch = store.begin()
    start(batch, plan, event)
    store.end(batch)
    slow, fast = store.begin(), store.begin()
    transition = fold(slow.load([RUN])[RUN], [RunFact(RUN, ended(0, 1))], slow.now, FREE)
    commit(fast, RUN, CancelRequested())
    store.end(fast)
    (current,) = slow.commit([transition])
    assert isinstance(current, RunRecord)
    assert current.run.status is RunStatus.CANCELLED
    assert commit(slow, RUN, CancelRequested()).run == current.run
    store.end(slow)
