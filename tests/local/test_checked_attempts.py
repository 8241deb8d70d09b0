"""Attempts whose code is verified before they begin: at most one begins per iteration of the event loop."""

from __future__ import annotations

import asyncio
from typing import Any

from stepwell.core.run.messages import Outcome
from stepwell.local.runners.checked import CheckedAttempt
from stepwell.local.runners.program import STOPPED


class Runs:
    def stop(self) -> None: ...


def test_one_attempt_with_verified_code_begins_per_loop_iteration() -> None:
    async def main() -> None:
        turn, turns, begun = asyncio.Lock(), 0, list[int]()

        async def count_turns() -> None:
            nonlocal turns
            while len(begun) < 5:
                turns += 1
                await asyncio.sleep(0)

        def begin() -> Runs:
            begun.append(turns)
            return Runs()

        for _ in range(5):
            CheckedAttempt(lambda: None, begin, lambda outcome: None, turn)
        await count_turns()
        assert len(set(begun)) == 5

    asyncio.run(main())


def test_an_attempt_stopped_before_its_turn_does_not_begin() -> None:
    async def main() -> None:
        turn, begun, ended = asyncio.Lock(), list[Any](), asyncio.Queue[Outcome]()
        await turn.acquire()
        attempt = CheckedAttempt(lambda: None, lambda: begun.append(1) or Runs(), ended.put_nowait, turn)
        attempt.stop()
        turn.release()
        assert await ended.get() == STOPPED
        assert begun == []

    asyncio.run(main())
