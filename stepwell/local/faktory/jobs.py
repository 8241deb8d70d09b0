"""The jobs of workers: an attempt is fetched, may get a result, and is completed or fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import orjson

from stepwell.core.run.messages import Outcome
from stepwell.core.run.outcome import from_output, from_worker_failure, read_json
from stepwell.core.times import time_text
from stepwell.local.engine.platform import LocalPlatform
from stepwell.local.faktory.commands import BadCommand, Fail
from stepwell.local.faktory.job_ids import JobIds
from stepwell.local.faktory.pauses import Pauses
from stepwell.local.runners.faktory import FaktoryRunner, FetchedAttempt
from stepwell.local.store.faktory_rows import FaktoryRows
from stepwell.platform import AttemptId

RESULT_PATH = "/faktory/results/"
FETCH_S = 2.0  # how long FETCH waits for a job
_MAX_BACKTRACE = 32 * 1024  # bytes; a log of this size is stored with the outcome
_NO_RESULT = b"null"
_LAUNCH_S, _LOOK_AGAIN_S = 5.0, 0.005


class UnknownJob(BadCommand):
    """This server has not made the id of the job."""


class Jobs:
    """`pauses`: the paused queues."""

    def __init__(self, platform: LocalPlatform, runner: FaktoryRunner, rows: FaktoryRows, url: str) -> None:
        """`url`: the public address of the HTTP API."""
        self._platform, self._runner, self._rows = platform, runner, rows
        self._ids = JobIds(platform.links.keys)
        self._result_url = url.rstrip("/") + RESULT_PATH
        self._with_results = rows.attempts_with_results()
        self.pauses = Pauses(platform, rows)

    # --- FETCH -----------------------------------------------------------------------------------------------------

    async def fetch(self, queues: Sequence[str], is_wanted: Callable[[], bool]) -> bytes | None:
        """The next job of the first of these queues that has one, as JSON. None if none comes within two seconds.

        `is_wanted` says whether the worker still waits. If not, another worker gets the job."""
        names = self.pauses.without(queues)
        if not names:
            await asyncio.sleep(FETCH_S)
            return None
        future = self._platform.executor.worker_queues.ask(names)
        is_late = False

        def stop_waiting() -> None:
            nonlocal is_late
            is_late = future.cancel()

        timer = asyncio.get_running_loop().call_later(FETCH_S, stop_waiting)
        try:
            attempt = await future
        except asyncio.CancelledError:
            if is_late:
                return None
            self._give_back(future)
            raise
        finally:
            timer.cancel()
        if not is_wanted():
            self._give_back(future)
            return None
        fetched = self._runner.find(attempt)
        return None if fetched is None else self._job(attempt, fetched)  # it may have been cancelled just now

    def _give_back(self, future: asyncio.Future[AttemptId]) -> None:
        if future.cancel():
            return
        attempt = future.result()
        if (fetched := self._runner.find(attempt)) is not None:
            self._platform.executor.worker_queues.give_back(fetched.queue, attempt)

    def _job(self, attempt: AttemptId, fetched: FetchedAttempt) -> bytes:
        """https://github.com/contribsys/faktory/wiki/The-Job-Payload"""
        job, now, jid = fetched.job, time_text(self._platform.clock.now()), self._ids.jid_of(attempt)
        return orjson.dumps(
            {
                "jid": jid,
                "jobtype": job.step.runtime.jobtype,
                "args": orjson.Fragment(fetched.args),
                "queue": fetched.queue,
                "reserve_for": job.step.timeout_ms // 1000,
                "retry": 0,
                "created_at": now,
                "enqueued_at": now,
                "custom": {"stepwell_result_url": self._result_url + jid},
            }
        )

    # --- ACK, FAIL and results -------------------------------------------------------------------------------------

    async def complete(self, jid: str) -> None:
        """Completes a job; the output is the result that the worker has sent, or null. Returns when that is durable.

        Does nothing if the job has ended before, for example because the reservation was over. Raises UnknownJob, and
        Unavailable."""

        def outcome(fetched: FetchedAttempt, result: bytes | None) -> Outcome:
            return from_output(read_json(result or _NO_RESULT), self._platform.clock.now())

        await self._end(jid, outcome)

    async def fail(self, fail: Fail) -> None:
        """Does the same as `complete` for a job that failed."""

        def outcome(fetched: FetchedAttempt, result: bytes | None) -> Outcome:
            if fail.backtrace:
                text = "\n".join(fail.backtrace).encode("utf-8", "replace")
                fetched.log("stderr", text[:_MAX_BACKTRACE] + b"\n")
            report = read_json(result or _NO_RESULT)
            return from_worker_failure(_failure_text(fail), report, self._platform.clock.now())

        await self._end(fail.jid, outcome)

    async def put_result(self, jid: str, body: bytes) -> bool:
        """Stores the result of a job until the worker completes it. Returns False if the job has ended. Raises
        UnknownJob, and Unavailable."""
        attempt = self._attempt_of(jid)
        if await self._find(attempt) is None:
            return False
        await self._platform.batches.do(lambda batch: self._rows.put_result(attempt, body))
        self._with_results.add(attempt)
        return True

    async def remove_old_results(self) -> None:
        """Removes results of attempts that were lost or cancelled, or that ended just before the server was killed."""
        old = self._with_results - self._platform.executor.running
        if old:
            await self._platform.batches.do(lambda batch: self._rows.remove_results(old))
            self._with_results -= old

    async def _end(self, jid: str, outcome: Callable[[FetchedAttempt, bytes | None], Outcome]) -> None:
        attempt = self._attempt_of(jid)
        fetched = await self._find(attempt)
        has_result = attempt in self._with_results
        if fetched is not None:
            self._runner.end(attempt, outcome(fetched, self._rows.result(attempt) if has_result else None))
        await self._platform.batches.fold(())
        if has_result:
            self._with_results.discard(attempt)
            await self._platform.batches.do(lambda batch: self._rows.remove_results([attempt]))

    def _attempt_of(self, jid: str) -> AttemptId:
        attempt = self._ids.attempt_of(jid)
        if attempt is None:
            raise UnknownJob("there is no such job: `jid` is not an id that this server has given to a worker")
        return attempt

    async def _find(self, attempt: AttemptId) -> FetchedAttempt | None:
        """An attempt that has not ended. Just after a start of the server, it may have to be launched first."""
        deadline = asyncio.get_running_loop().time() + _LAUNCH_S
        while (fetched := self._runner.find(attempt)) is None:
            if attempt not in self._platform.executor.running or asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(_LOOK_AGAIN_S)
        return fetched


def _failure_text(fail: Fail) -> str:
    """The message of the error. Some libraries send a placeholder as the type."""
    kind = "" if fail.errtype in ("", "undefined", "unknown", "Error") else fail.errtype
    return ": ".join(part for part in (kind, fail.message) if part) or "the job failed"
