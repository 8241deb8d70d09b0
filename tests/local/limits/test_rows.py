"""The rows of limits in SQLite: what others read about waiting starts."""

from __future__ import annotations

import sqlite3

from stepwell.local.database.schema import migrate
from stepwell.local.store.limit_rows import LaneRow, LimitRows, WaitRow, waiting_for
from stepwell.reader import WaitingFor


def test_what_waited_before_a_restart_is_not_shown_after_it() -> None:
    connection = sqlite3.connect(":memory:")
    migrate(connection)
    rows = LimitRows(connection)
    rows.wait(WaitRow(("run", 0, 1), 7, 100, 1, 90))
    rows.move(LaneRow(7, ("f/concurrency", b"k"), '"ada"'))
    rows.write()
    assert waiting_for(connection, "run") == {0: WaitingFor("f/concurrency", '"ada"', 0, 90)}
    LimitRows(connection).write()
    assert waiting_for(connection, "run") == {}
