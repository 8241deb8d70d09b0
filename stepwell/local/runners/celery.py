"""Steps that are tasks of an existing Celery app: a message to its broker, and the result from its backend."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import cache, partial

from stepwell.core.plan import Runtime
from stepwell.core.run.messages import Outcome
from stepwell.core.run.outcome import failure
from stepwell.local.celery.addresses import RPC, BadAddress, check_backend, expand
from stepwell.local.celery.clients import Clients
from stepwell.local.celery.messages import TaskMessage, task_id
from stepwell.local.celery.outcomes import outcome_of, traceback_of
from stepwell.local.celery.publisher import BrokerGone
from stepwell.local.runners.arguments import NoArguments, arguments
from stepwell.local.runners.job import CannotRun, End, Job, Log, Running
from stepwell.local.runners.program import STOPPED, start_failure
from stepwell.project.extras import missing_for_celery

Work = Callable[[], Coroutine[None, None, Outcome]]


class CeleryRunner:
    """Implements `RemoteRunner`."""

    def __init__(self, database: Callable[[], str]) -> None:
        """`database` returns the name of the database, which task ids depend on."""
        self._database = cache(database)
        self._made_clients: Clients | None = None
        self._attempts: set[_Attempt] = set()
        self._is_closed = False

    def start(self, job: Job, log: Log, end: End) -> Running:
        return self.start_remote(job, log, end, lambda: None)

    def start_remote(self, job: Job, log: Log, end: End, accepted: Callable[[], None]) -> Running:
        return _Attempt(partial(self._publish, job, log, accepted), end, self._attempts)

    def resume(self, job: Job, log: Log, end: End) -> Running:
        return _Attempt(partial(self._result, job, log, None), end, self._attempts)

    async def close(self) -> None:
        """Closes the connections. Tasks go on."""
        self._is_closed = True
        for attempt in self._attempts:
            attempt.leave()
        self._attempts.clear()
        if self._made_clients is not None:
            await self._made_clients.close()

    @property
    def _clients(self) -> Clients:
        self._made_clients = self._made_clients or Clients(self._database())
        return self._made_clients

    async def _publish(self, job: Job, log: Log, accepted: Callable[[], None]) -> Outcome:
        runtime = job.step.runtime
        try:
            args, kwargs = arguments(runtime, job.input)
        except NoArguments as error:
            return failure("arguments_failed", str(error), retryable=False)
        expires = time.time_ns() // 1_000_000 + job.step.timeout_ms
        name = self._id(job)
        message = TaskMessage(name, runtime.task or "", runtime.queue, args, kwargs, expires)

        def sent() -> None:
            accepted()
            log("system", f"sent {message.task} to the queue {message.queue} with the id {message.id}\n".encode())

        return await self._result(job, log, (message, sent))

    async def _result(self, job: Job, log: Log, sending: tuple[TaskMessage, Callable[[], None]] | None) -> Outcome:
        """The result of the task, whose message is sent first if there is one."""
        try:
            broker, backend = addresses(job.step.runtime, job.env)
        except BadAddress as error:
            return failure("start", str(error), retryable=False)
        name = self._id(job)
        results, publisher = self._clients.results(broker, backend), self._clients.publisher(broker, backend)
        found = results.expect(name)
        try:
            if sending is not None:
                message, sent = sending
                await publisher.publish(message)
                sent()
            meta = await found
        except BrokerGone as error:
            return failure("broker", str(error))
        except asyncio.CancelledError:
            if not self._is_closed:
                publisher.revoke(name)
            raise
        finally:
            results.forget(name)
        if text := traceback_of(meta):
            log("stderr", text)
        return outcome_of(meta)

    def _id(self, job: Job) -> str:
        return task_id(self._database(), job.run_id, job.step.id, job.attempt)


class _Attempt:
    """An attempt that waits for the end of a task. `end` is called once, unless the attempt is left to the workers."""

    def __init__(self, work: Work, end: End, attempts: set[_Attempt]) -> None:
        self._end, self._attempts = end, attempts
        self._is_left = False
        attempts.add(self)
        self._task = asyncio.get_running_loop().create_task(work())
        self._task.add_done_callback(self._done)

    def stop(self) -> None:
        self._task.cancel()

    def leave(self) -> None:
        """Stops waiting for the task, which goes on."""
        self._is_left = True
        self._task.cancel()

    def _done(self, task: asyncio.Task[Outcome]) -> None:
        if self._is_left:
            return
        self._attempts.discard(self)
        if task.cancelled():
            self._end(STOPPED)
        elif error := task.exception():
            self._end(start_failure(error))
        else:
            self._end(task.result())


def addresses(runtime: Runtime, env: Mapping[str, str]) -> tuple[str, str]:
    """The addresses of broker and backend. Raises BadAddress."""
    backend = expand("backend", runtime.backend or RPC, env)
    check_backend(backend)
    return expand("broker", runtime.broker or "", env), backend


def check(runtime: Runtime) -> None:
    """Raises CannotRun if a package is missing."""
    if (reason := missing_for_celery(runtime.broker or "", runtime.backend or RPC)) is not None:
        raise CannotRun(reason)
