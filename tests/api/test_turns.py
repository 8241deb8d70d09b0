"""Large bodies are parsed one at a time, and other requests are answered meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Generator

from stepwell.api.ingest.turns import Turns


def pieces(name: str, done: list[str]) -> Generator[None, None, str]:
    for _ in range(3):
        done.append(name)
        yield
    return name


def test_one_body_is_parsed_at_a_time_and_other_tasks_run_between_pieces() -> None:
    async def main() -> None:
        turns, done = Turns(slice_s=0.0), list[str]()

        async def other() -> None:
            for _ in range(2):
                done.append("other")
                await asyncio.sleep(0)

        first, second, _ = await asyncio.gather(
            turns.in_pieces(pieces("first", done)), turns.in_pieces(pieces("second", done)), other()
        )
        assert (first, second) == ("first", "second")
        assert done[:4] == ["first", "other", "first", "other"]
        assert [name for name in done if name != "other"] == ["first"] * 3 + ["second"] * 3

    asyncio.run(main())


def test_an_invalid_body_does_not_block_the_next_one() -> None:
    def broken() -> Generator[None, None, str]:
        yield
        raise ValueError("no JSON")

    async def main() -> None:
        turns = Turns()
        results = await asyncio.gather(
            turns.in_pieces(broken()), turns.in_pieces(pieces("next", [])), return_exceptions=True
        )
        assert isinstance(results[0], ValueError)
        assert results[1] == "next"

    asyncio.run(main())


def test_bodies_parsed_in_a_thread_take_turns_too() -> None:
    async def main() -> None:
        turns, done = Turns(), list[str]()

        def work() -> str:
            done.append("in a thread")
            return "made"

        results = await asyncio.gather(
            turns.in_pieces(pieces("first", done)), turns.in_thread(work), turns.in_pieces(pieces("last", done))
        )
        assert results == ["first", "made", "last"]
        assert done == ["first"] * 3 + ["in a thread"] + ["last"] * 3

    asyncio.run(main())
